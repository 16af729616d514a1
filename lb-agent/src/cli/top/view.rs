//! How `lbctl top` looks.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::Line,
    widgets::{Block, Row, Table},
};

use super::rates::{EndRate, Order, Rate, Rates, human};
use crate::cli::console::{absence, endpoint};

/// Lines for verdicts and drops, their heading included.
const ENDS: u16 = 9;

/// What is on the screen.
pub(super) struct View {
    pub rates: Rates,
    pub order: Order,
    pub paused: bool,
    /// First line of the table that is shown.
    pub scroll: usize,
}

impl View {
    /// Lines of the table.
    pub fn lines(&self) -> usize {
        self.rates.services.iter().map(|service| 1 + service.backends.len()).sum()
    }

    /// Draws everything. `colored`: the terminal may be told of colours.
    pub fn draw(&self, frame: &mut Frame<'_>, colored: bool) {
        let rows = [Constraint::Length(1), Constraint::Min(3), Constraint::Length(ENDS), Constraint::Length(1)];
        let [head, services, ends, foot] = Layout::vertical(rows).areas(frame.area());
        let [verdicts, drops] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(3).areas(ends);
        let bad = if colored { Style::new().fg(Color::Red) } else { Style::new() };
        frame.render_widget(self.head(bad), head);
        self.draw_services(frame, services, bad);
        draw_ends(frame, verdicts, "VERDICTS", &self.rates.verdicts, Style::new());
        draw_ends(frame, drops, "DROPS", &self.rates.drops, bad);
        let order = self.order.label();
        let foot_line = format!("q quit   s sort (now by {order})   p pause   up/down scroll");
        frame.render_widget(Line::from(foot_line).dim(), foot);
    }

    fn head(&self, bad: Style) -> Line<'static> {
        let rates = &self.rates;
        let what = format!("per second, over {:.1} s", rates.seconds);
        let state = if self.paused { "  PAUSED" } else { "" };
        if rates.agent.running {
            let node = rates.agent.owner.as_ref().map_or("levee", |owner| owner.node.as_str());
            Line::from(format!("{node}  {what}{state}"))
        } else {
            Line::styled(format!("{}  {what}{state}", absence(&rates.agent)), bad)
        }
    }

    fn draw_services(&self, frame: &mut Frame<'_>, area: Rect, bad: Style) {
        let mut rows = Vec::new();
        for service in &self.rates.services {
            let vip = format!("{}/{}", endpoint(service.vip, service.port), service.protocol);
            rows.push(row(service.name.clone(), vip, String::new(), service.rate).bold());
            for backend in &service.backends {
                let state = if backend.in_ring { backend.mode.to_owned() } else { format!("{}, idle", backend.mode) };
                let line =
                    row(String::new(), format!("  {}", endpoint(backend.address, backend.port)), state, backend.rate);
                rows.push(if backend.in_ring { line } else { line.style(bad) });
            }
        }
        let widths = [
            Constraint::Fill(2),
            Constraint::Fill(3),
            Constraint::Fill(2),
            Constraint::Length(12),
            Constraint::Length(12),
        ];
        let heading = Row::new(["SERVICE", "VIP, BACKEND", "MODE", "   PACKETS/s", "     BYTES/s"]).dim();
        frame.render_widget(Table::new(rows.into_iter().skip(self.scroll), widths).header(heading), area);
    }
}

fn row(name: String, place: String, state: String, rate: Rate) -> Row<'static> {
    let number = |number: f64| format!("{:>12}", human(number));
    Row::new([name, place, state, number(rate.packets_per_second), number(rate.bytes_per_second)])
}

fn draw_ends(frame: &mut Frame<'_>, area: Rect, heading: &'static str, ends: &[EndRate], style: Style) {
    let mut moving: Vec<_> = ends.iter().filter(|end| end.packets_per_second > 0.0).collect();
    moving.sort_by(|a, b| b.packets_per_second.total_cmp(&a.packets_per_second));
    let none = moving.is_empty().then(|| Row::new(["none".to_owned(), String::new()]));
    let rows = moving
        .into_iter()
        .map(|end| Row::new([end.name.to_owned(), format!("{:>10}", human(end.packets_per_second))]).style(style));
    let widths = [Constraint::Fill(1), Constraint::Length(10)];
    let block = Block::new().title(Line::from(heading).dim());
    frame.render_widget(Table::new(rows.chain(none), widths).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::{super::rates::tests::two_seconds, *};
    use crate::examples;

    fn screen(view: &View, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, height)).unwrap();
        terminal.draw(|frame| view.draw(frame, false)).unwrap();
        terminal.backend().to_string()
    }

    fn view() -> View {
        let mut rates = two_seconds();
        rates.sort(Order::Packets);
        View { rates, order: Order::Packets, paused: false, scroll: 0 }
    }

    #[test]
    fn services_backends_and_ends_are_on_the_screen() {
        insta::assert_snapshot!(screen(&view(), 22));
    }

    #[test]
    fn a_pause_and_an_absent_agent_are_seen() {
        let mut view = View { paused: true, ..view() };
        assert!(screen(&view, 22).contains("node-1  per second, over 2.0 s  PAUSED"));
        view.rates.agent = examples::presence(false);
        assert!(screen(&view, 22).contains("agent is not running (last: process 4711"));
    }

    #[test]
    fn what_does_not_fit_is_scrolled_to() {
        let view = View { scroll: 4, ..view() };
        let text = screen(&view, 16);
        assert!(text.contains("kubernetes") && !text.contains("web"), "{text}");
        assert_eq!(view.lines(), 8);
    }

    #[test]
    fn a_tiny_terminal_is_no_failure() {
        let mut terminal = Terminal::new(TestBackend::new(3, 2)).unwrap();
        terminal.draw(|frame| view().draw(frame, true)).unwrap();
    }
}
