//! The live view: a table and the ledger, a look every second, keys for order and for the end. The terminal is put back
//! whatever ends it: a key, a server that went away, a panic.

use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::table::{COLUMNS, Order, ledger, line, rows};
use super::{EVERY, clean, look};
use crate::cli::{Exit, Failure};
use crate::telemetry::load::{Pressure, span};
use crate::telemetry::web::Access;
use crate::telemetry::{Load, Snapshot};

/// How long a key may wait to be seen.
const KEYS: Duration = Duration::from_millis(50);

/// What is shown.
struct View {
    address: String,
    load: Load,
    order: Order,
    /// Why the last look failed.
    wrong: Option<String>,
}

/// Shows it until `q`.
pub async fn run(address: &str, access: &Access, before: Snapshot) -> Exit {
    let mut terminal = ratatui::try_init().map_err(|error| {
        Failure::ran(format!("this is no terminal barline top can draw on: {error}; --once prints a plain table"))
    })?;
    let done = show(&mut terminal, address, access, before).await;
    ratatui::restore();
    done.map_err(Failure::ran)
}

async fn show(
    terminal: &mut DefaultTerminal,
    address: &str,
    access: &Access,
    mut before: Snapshot,
) -> std::io::Result<()> {
    let load = Load::between(&before, &before);
    let mut view = View { address: address.to_owned(), load, order: Order::Flow, wrong: None };
    let mut looked = Instant::now();
    loop {
        terminal.draw(|frame| draw(frame, &view))?;
        if keys(&mut view.order)? {
            return Ok(());
        }
        if looked.elapsed() < EVERY {
            continue;
        }
        looked = Instant::now();
        match look(address, access).await {
            Ok(now) => {
                view.load = Load::between(&before, &now);
                view.wrong = None;
                before = now;
            }
            Err(failure) => view.wrong = Some(failure.message),
        }
    }
}

/// Takes the keys pressed; whether one of them says that it is enough.
fn keys(order: &mut Order) -> std::io::Result<bool> {
    let mut wait = KEYS;
    while event::poll(wait)? {
        wait = Duration::ZERO;
        let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event::read()? else { continue };
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Ok(true),
            KeyCode::Char('f') => *order = Order::Flow,
            KeyCode::Char('l') => *order = Order::Lag,
            KeyCode::Char('r') => *order = Order::Rate,
            KeyCode::Char('b') => *order = Order::Busy,
            _ => {}
        }
    }
    Ok(false)
}

fn draw(frame: &mut Frame<'_>, view: &View) {
    let parts =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(3)]).split(frame.area());
    let [head, body, foot] = [0, 1, 2].map(|part| parts.get(part).copied().unwrap_or_default());
    let dim = Style::new().add_modifier(Modifier::DIM);
    let title = format!("{}  up {}  {}", clean(&view.load.topology), span(view.load.uptime), view.address);
    frame.render_widget(Paragraph::new(Line::styled(title, Style::new().add_modifier(Modifier::BOLD))), head);
    let mut lines = vec![Line::styled(line(&COLUMNS), dim)];
    for row in rows(&view.load, view.order) {
        let style = match row.pressure {
            Pressure::None => Style::new(),
            Pressure::Pressed => Style::new().fg(Color::Yellow),
            Pressure::Limiting => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
        };
        lines.push(Line::styled(line(&row.cells), style));
    }
    frame.render_widget(Paragraph::new(lines), body);
    let told = view.wrong.clone().unwrap_or_else(|| ledger(&view.load.ledger));
    let keys = Line::styled("order: f flow  l lag  r rate  b busy    q quit", dim);
    frame.render_widget(Paragraph::new(vec![Line::from(told), Line::default(), keys]), foot);
}
