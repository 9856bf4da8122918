//! What every page has around its contents: title, navigation, style, and the script where figures are live.

use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::serve::Served;

const PAGES: [(&str, &str); 5] =
    [("/", "Topology"), ("/windows", "Windows"), ("/ledger", "Ledger"), ("/series", "Series"), ("/specs", "Specs")];

/// A page whose figures do not move.
pub fn still(served: &Served, path: &str, title: &str, contents: &Markup) -> Response {
    frame(served, path, title, contents, false)
}

/// A page whose figures are sent every second.
pub fn live(served: &Served, path: &str, title: &str, contents: &Markup) -> Response {
    frame(served, path, title, contents, true)
}

fn frame(served: &Served, path: &str, title: &str, contents: &Markup, is_live: bool) -> Response {
    let name = &served.plan.name;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · " (name) " · barline" }
                // An empty icon, so that no browser asks for one.
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/page.css";
                @if is_live { script type="module" src="/live.js" {} }
            }
            body {
                a class="skip" href="#main" { "to the contents" }
                header {
                    strong { (name) }
                    nav aria-label="pages" {
                        @for (at, label) in PAGES {
                            a href=(at) aria-current=[(at == path).then_some("page")] { (label) }
                        }
                    }
                    @if is_live {
                        span class="status" {
                            "up " span data-text="uptime" { "–" } " · "
                            span class="connection" data-connection="" role="status" { "connecting" }
                        }
                    }
                }
                main id="main" { h1 { (title) } (contents) }
            }
        }
    };
    Html(page.into_string()).into_response()
}

/// A word or a number of a table's head; the first column's is a word.
pub fn head(names: &[&str]) -> Markup {
    html! { thead { tr { @for name in names { th scope="col" { (name) } } } } }
}
