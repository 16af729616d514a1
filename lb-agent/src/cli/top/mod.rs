//! `lbctl top`: rates, live on a terminal, or once as a table.

mod rates;
mod view;

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    rates::{EndRate, Order, Rate, Rates, human},
    view::View,
};
use super::{
    args::{Options, Output},
    block_on,
    console::{Report, Style, Table, endpoint, notice},
};
use crate::inspect::{Inspection, Inspector, Rings};

/// How soon a signal is followed.
const LOOK: Duration = Duration::from_millis(100);

/// How often, and whether live.
#[derive(clap::Args, Clone, Debug, PartialEq)]
pub(super) struct Args {
    /// Seconds between two readings, 0.1 to 3600
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Prints the rates over one interval and ends; so it is where the output is no terminal, and for JSON
    #[arg(long)]
    once: bool,
}

impl Eq for Args {}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "no number from 0.1 to 3600".to_owned())
}

impl Args {
    /// Whether the rates are to be printed once.
    pub fn is_once(&self, options: &Options) -> bool {
        self.once || options.output == Output::Json || !io::stdout().is_terminal()
    }
}

/// The rates over one interval.
pub(super) fn gather(options: &Options, args: &Args) -> Result<Rates> {
    let mut readings = Readings::begin(options)?;
    thread::sleep(args.interval);
    let mut rates = readings.next()?;
    rates.sort(Order::default());
    Ok(rates)
}

/// The last reading, and how to take the next one.
struct Readings {
    inspector: Inspector,
    last: Inspection,
    read: Instant,
}

impl Readings {
    fn begin(options: &Options) -> Result<Self> {
        let inspector = Inspector::open(&options.pin_path)?;
        Ok(Self { last: inspector.read(Rings::Skip)?, read: Instant::now(), inspector })
    }

    fn next(&mut self) -> Result<Rates> {
        let now = self.inspector.read(Rings::Skip)?;
        let read = Instant::now();
        let rates = Rates::between(&self.last, now.clone(), read - self.read);
        (self.last, self.read) = (now, read);
        Ok(rates)
    }
}

/// Shows the rates until somebody has seen enough. The terminal is put right again, whatever happens.
pub(super) fn live(options: &Options, args: &Args, style: Style) -> Result<()> {
    let mut readings = Readings::begin(options)?;
    let view = View { rates: readings.next()?, order: Order::default(), paused: false, scroll: 0 };
    let ended = watch_signals()?;
    let mut screen = Screen { terminal: ratatui::try_init().context("preparing the terminal")? };
    screen.run(view, &mut readings, args.interval, &ended, style.is_colored())
}

/// A terminal that shows something else than a shell; it gets its old self back when this is dropped. A panic does the
/// same before its message is written.
struct Screen {
    terminal: DefaultTerminal,
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl Screen {
    fn run(
        &mut self,
        mut view: View,
        readings: &mut Readings,
        interval: Duration,
        ended: &AtomicBool,
        colored: bool,
    ) -> Result<()> {
        let mut due = Instant::now() + interval;
        while !ended.load(Ordering::Relaxed) {
            self.terminal.draw(|frame| view.draw(frame, colored)).context("drawing")?;
            let left = due.saturating_duration_since(Instant::now());
            if event::poll(left.min(LOOK)).context("waiting for a key")?
                && let Event::Key(key) = event::read().context("reading a key")?
                && view.follow(key) == Then::End
            {
                return Ok(());
            }
            if Instant::now() >= due {
                due = Instant::now() + interval;
                let rates = readings.next()?;
                if !view.paused {
                    view.rates = rates;
                    view.rates.sort(view.order);
                }
            }
        }
        Ok(())
    }
}

/// What follows a key.
#[derive(Debug, Eq, PartialEq)]
enum Then {
    GoOn,
    End,
}

impl View {
    fn follow(&mut self, key: KeyEvent) -> Then {
        if key.kind == KeyEventKind::Release {
            return Then::GoOn;
        }
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Then::End,
            KeyCode::Char('q') | KeyCode::Esc => return Then::End,
            KeyCode::Char('s') => {
                self.order = self.order.next();
                self.rates.sort(self.order);
            }
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Down => self.scroll = (self.scroll + 1).min(self.lines().saturating_sub(1)),
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            _ => {}
        }
        Then::GoOn
    }
}

/// Becomes true at SIGTERM or SIGHUP, which would end the process without putting the terminal right. In raw mode Ctrl-C
/// is a key.
fn watch_signals() -> Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let watcher = thread::Builder::new().name("signals".to_owned());
    let wait = async {
        let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        tokio::select! { _ = terminate.recv() => {}, _ = hangup.recv() => {} }
        io::Result::Ok(())
    };
    watcher
        .spawn(move || {
            if let Ok(Ok(())) = block_on(wait) {
                seen.store(true, Ordering::Relaxed);
            }
        })
        .context("watching for signals")?;
    Ok(ended)
}

impl Report for Rates {
    fn text(&self, style: Style) -> String {
        let mut services = Table::new(&["SERVICE", "VIP", "BACKEND", "MODE", ">PACKETS/s", ">BYTES/s"]);
        let rates = |rate: Rate| [human(rate.packets_per_second), human(rate.bytes_per_second)];
        for service in &self.services {
            let vip = format!("{}/{}", endpoint(service.vip, service.port), service.protocol);
            let [packets, bytes] = rates(service.rate);
            services.row([service.name.clone(), vip.clone(), "all".to_owned(), String::new(), packets, bytes], false);
            for backend in &service.backends {
                let [packets, bytes] = rates(backend.rate);
                let of = endpoint(backend.address, backend.port);
                let cells = [service.name.clone(), vip.clone(), of, backend.mode.to_owned(), packets, bytes];
                services.row(cells, !backend.in_ring);
            }
        }
        let ends = |heading, ends: &[EndRate], none: &str, is_bad| {
            let mut table = Table::new(&[heading, ">PACKETS/s", "MEANING"]);
            for end in ends.iter().filter(|end| end.packets_per_second > 0.0) {
                table.row([end.name.to_owned(), human(end.packets_per_second), end.text.to_owned()], is_bad);
            }
            table.render(none, style)
        };
        let services = services.render("There is no service.", style);
        let verdicts = ends("VERDICT", &self.verdicts, "No packet for a VIP was let through.", false);
        let drops = ends("DROPPED", &self.drops, "No packet was dropped.", true);
        let over = format!("over {:.1} s", self.seconds);
        format!("{}{services}\n{verdicts}\n{drops}\n{over}\n", notice(&self.agent, style))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::console::json;

    fn view() -> View {
        View { rates: rates::tests::two_seconds(), order: Order::Packets, paused: false, scroll: 0 }
    }

    fn press(view: &mut View, code: KeyCode) -> Then {
        view.follow(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut view = view();
        assert_eq!(press(&mut view, KeyCode::Char('s')), Then::GoOn);
        assert_eq!(view.order, Order::Bytes);
        press(&mut view, KeyCode::Char('p'));
        assert!(view.paused);
        press(&mut view, KeyCode::Up);
        press(&mut view, KeyCode::Down);
        assert_eq!(view.scroll, 1);
        for _ in 0..20 {
            press(&mut view, KeyCode::Down);
        }
        assert_eq!(view.scroll, 7);
        assert_eq!(press(&mut view, KeyCode::Char('c')), Then::GoOn);
        assert_eq!(press(&mut view, KeyCode::Char('q')), Then::End);
        assert_eq!(view.follow(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Then::End);
    }

    #[test]
    fn people_see_one_table() {
        insta::assert_snapshot!(rates::tests::two_seconds().text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        let mut rates = rates::tests::two_seconds();
        rates.services.truncate(1);
        rates.verdicts.truncate(1);
        rates.drops.truncate(1);
        insta::assert_snapshot!(json(&rates).unwrap());
    }

    #[test]
    fn intervals_are_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("0").is_err() && seconds("NaN").is_err() && seconds("soon").is_err());
    }
}
