//! The terminal: a thread of its own writes, so that one that stands still (Ctrl-S, a full pipe) holds up nobody.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Messages that may wait for the terminal; what comes when it is this far behind is left out.
const MOST_WAITING: usize = 64;
/// At the end a terminal that stands still is given up after this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is assumed of a terminal that does not tell its size.
const USUAL_SIZE: (u16, u16) = (80, 24);

/// The live table's printer, for log lines: they must appear above the table, not in it.
static BESIDE_TABLE: Mutex<Option<flume::Sender<Message>>> = Mutex::new(None);

/// Hands text to the thread that writes.
pub struct Printer {
    messages: flume::Sender<Message>,
    ended: flume::Receiver<()>,
}

enum Message {
    /// Text that stays.
    Append(String),
    /// The live table, in place of the one before.
    Redraw(String),
}

impl Printer {
    /// Starts the thread; it writes to `out`.
    pub fn start(out: impl Write + Send + 'static) -> Self {
        let (messages, waiting) = flume::bounded(MOST_WAITING);
        let (end, ended) = flume::bounded(0);
        std::thread::spawn(move || {
            write_all(waiting, out);
            drop(end);
        });
        Self { messages, ended }
    }

    /// Writes `text`, if the terminal keeps up.
    pub fn append(&self, text: String) {
        if !text.is_empty() {
            let _ = self.messages.try_send(Message::Append(text));
        }
    }

    /// Draws `screen` over the one before, if the terminal keeps up. From now on log lines appear above it.
    pub fn redraw(&self, screen: String) {
        let mut beside = BESIDE_TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        if beside.is_none() && io::stderr().is_terminal() {
            *beside = Some(self.messages.clone());
        }
        let _ = self.messages.try_send(Message::Redraw(screen));
    }

    /// Waits until everything is written, but not for long.
    pub async fn finish(self) {
        BESIDE_TABLE.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self.messages);
        let _ = tokio::time::timeout(PATIENCE, self.ended.recv_async()).await;
    }
}

/// Columns and rows of the terminal.
pub fn size() -> (usize, usize) {
    let known = crossterm::terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0);
    let (width, height) = known.unwrap_or(USUAL_SIZE);
    (width.into(), height.into())
}

/// Where log lines go: to stderr, or above the live table where both share a terminal.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let beside = BESIDE_TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let text = || Message::Append(String::from_utf8_lossy(line).into_owned());
        if beside.as_ref().is_none_or(|table| table.try_send(text()).is_err()) {
            io::stderr().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Writes until nobody can send any more, or nobody reads.
fn write_all(messages: flume::Receiver<Message>, mut out: impl Write) {
    let mut drawn = String::new();
    for message in &messages {
        let text = match message {
            Message::Append(text) if drawn.is_empty() => text,
            Message::Append(text) => format!("{}\x1b[J{text}{}", above(&drawn), over("", &drawn)),
            Message::Redraw(screen) => {
                let text = over(&drawn, &screen);
                drawn = screen;
                text
            }
        };
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// What draws `screen` over `drawn` without a flicker: no line is cleared before it is written, lines are cut at the
/// edge instead of wrapped, and terminals that can (mode 2026) show all of it at once.
fn over(drawn: &str, screen: &str) -> String {
    let mut text = format!("\x1b[?2026h\x1b[?7l{}", above(drawn));
    for line in screen.lines() {
        text += line;
        text += "\x1b[K\n";
    }
    text + "\x1b[J\x1b[?7h\x1b[?2026l"
}

/// What moves the cursor from below `drawn` to its first line.
fn above(drawn: &str) -> String {
    match drawn.lines().count() {
        0 => "\r".to_owned(),
        lines => format!("\r\x1b[{lines}A"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(messages: Vec<Message>) -> String {
        let (sender, receiver) = flume::unbounded();
        for message in messages {
            sender.send(message).unwrap();
        }
        drop(sender);
        let mut out = Vec::new();
        write_all(receiver, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// A terminal that knows just what is used here; shows its lines.
    fn shown(text: &str) -> Vec<String> {
        let (mut lines, mut row, mut rest): (Vec<String>, usize, _) = (vec![String::new()], 0, text);
        let mut column = 0;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '\x1b' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let (number, command) = (&rest[1..end], &rest[end..=end]);
                    match command {
                        "A" => row -= number.parse::<usize>().unwrap(),
                        "K" => lines[row].truncate(column),
                        "J" => {
                            lines.truncate(row + 1);
                            lines[row].truncate(column);
                        }
                        _ => {}
                    }
                    rest = &rest[end + 1..];
                }
                '\r' => column = 0,
                '\n' => {
                    (row, column) = (row + 1, 0);
                    lines.resize(lines.len().max(row + 1), String::new());
                }
                c => {
                    let mut line: Vec<char> = lines[row].chars().collect();
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = c;
                    lines[row] = line.into_iter().collect();
                    column += 1;
                }
            }
        }
        lines
    }

    #[test]
    fn a_screen_replaces_the_one_before_whether_it_is_longer_or_shorter() {
        let draw = |screens: &[&str]| written(screens.iter().map(|s| Message::Redraw((*s).to_owned())).collect());
        assert_eq!(shown(&draw(&["long line\nb\nc", "x\ny"])), ["x", "y", ""]);
        assert_eq!(shown(&draw(&["a", "x\ny\nz"])), ["x", "y", "z", ""]);
    }

    #[test]
    fn a_log_line_appears_above_the_table_and_stays() {
        let text = written(vec![
            Message::Append("before\n".into()),
            Message::Redraw("a\nb".into()),
            Message::Append("log\n".into()),
            Message::Redraw("c\nd\ne".into()),
        ]);
        assert_eq!(shown(&text), ["before", "log", "c", "d", "e", ""]);
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_ends_the_printer_and_nobody_waits() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = flume::bounded(1);
        sender.send(Message::Append("x".into())).unwrap();
        write_all(receiver, Gone);
        assert!(sender.try_send(Message::Append("y".into())).is_err());
    }
}
