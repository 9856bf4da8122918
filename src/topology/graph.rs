//! A plan as a picture: Mermaid for Markdown, DOT for Graphviz.

use super::kind::{Flow, Role};
use super::plan::{Plan, StagePlan};

/// The plan as a Mermaid flowchart.
pub fn mermaid(plan: &Plan) -> String {
    let mut text = String::from("flowchart LR\n");
    for (index, stage) in plan.stages.iter().enumerate() {
        let label = label(stage, "<br/>");
        let [open, close] = match stage.kind.role {
            Role::Source => ["([", "])"],
            Role::Router => ["{{", "}}"],
            Role::Worker => ["[", "]"],
        };
        text += &format!("  s{index}{open}\"{label}\"{close}\n");
    }
    for (from, to, label) in edges(plan) {
        text += &format!("  s{from} -->|{label}| s{to}\n");
    }
    text
}

/// The plan in Graphviz's DOT language.
pub fn dot(plan: &Plan) -> String {
    let mut text = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n", escape(&plan.name));
    for (index, stage) in plan.stages.iter().enumerate() {
        let shape = match stage.kind.role {
            Role::Source => "oval",
            Role::Router => "hexagon",
            Role::Worker => "box",
        };
        text += &format!("  s{index} [shape={shape}, label=\"{}\"];\n", label(stage, "\\n"));
    }
    for (from, to, label) in edges(plan) {
        text += &format!("  s{from} -> s{to} [label=\"{label}\"];\n");
    }
    text + "}\n"
}

fn label(stage: &StagePlan, line_break: &str) -> String {
    let times = if stage.instances > 1 { format!(" ×{}", stage.count()) } else { String::new() };
    format!("{}{times}{line_break}{}", stage.name, stage.kind.name)
}

/// Every join of two stages: from, to, and what flows there with the capacity of its lanes.
fn edges(plan: &Plan) -> impl Iterator<Item = (usize, usize, String)> {
    plan.stages.iter().enumerate().flat_map(|(to, stage)| {
        let flow = stage.kind.takes.map_or("", Flow::name);
        stage.from.iter().map(move |from| (*from, to, format!("{flow} {}", stage.mailbox.capacity)))
    })
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::super::fake::compile_text;
    use super::*;

    const TEXT: &str = "{topology: 'a\"b', stages: {in: {kind: grpc_ingest}, split: {kind: shard_router, from: in}, agg: \
                        {kind: aggregator, from: split, instances: 2, mailbox: {capacity: 4}}}}";

    #[test]
    fn every_stage_and_join_is_in_the_picture() {
        let plan = compile_text(TEXT).unwrap();
        let expected = "flowchart LR\n  s0([\"in<br/>grpc_ingest\"])\n  s1{{\"split<br/>shard_router\"}}\n  s2[\"agg \
                        ×2<br/>aggregator\"]\n  s0 -->|ticks 64| s1\n  s1 -->|ticks 4| s2\n";
        assert_eq!(mermaid(&plan), expected);
        let dot = dot(&plan);
        assert!(dot.starts_with("digraph \"a\\\"b\" {") && dot.contains("s1 -> s2 [label=\"ticks 4\"]"), "{dot}");
    }
}
