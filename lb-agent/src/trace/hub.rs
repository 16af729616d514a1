//! Who listens, and what each of them is handed.

use std::sync::{Arc, Mutex};

use lb_common::maps::trace::{Event, Filter};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{Line, PacketEvent, Selection, WAITING, filter_for};

/// The listeners, shared between who adds them and who reads the events.
pub type SharedHub = Arc<Mutex<Hub>>;

/// The listeners.
#[derive(Default)]
pub struct Hub {
    listeners: Vec<Listener>,
}

struct Listener {
    selection: Selection,
    lines: mpsc::Sender<Line>,
    lost: u64,
}

impl Hub {
    /// Adds a listener. It has left when the receiver is dropped; the sender tells when that happens.
    pub fn add(&mut self, selection: Selection) -> (mpsc::Receiver<Line>, mpsc::Sender<Line>) {
        let (lines, receiver) = mpsc::channel(WAITING);
        self.listeners.push(Listener { selection, lines: lines.clone(), lost: 0 });
        (receiver, lines)
    }

    /// Forgets listeners that have left. The filter for those that are left, `None` if there are none.
    pub fn sweep(&mut self) -> Option<Filter> {
        self.listeners.retain(|listener| !listener.lines.is_closed());
        (!self.listeners.is_empty()).then(|| filter_for(self.listeners.iter().map(|listener| &listener.selection)))
    }

    /// Sends everybody away.
    pub fn clear(&mut self) {
        self.listeners.clear();
    }

    /// Hands an event to whoever wants it. `to_unix` is what to add to the event's clock to get Unix time.
    pub fn tell(&mut self, event: &Event, to_unix: u64) {
        let report = event.report();
        for listener in self.listeners.iter_mut().filter(|listener| listener.selection.wants(event)) {
            let line = Line::Packet(PacketEvent::new(event, &report, to_unix));
            if matches!(listener.lines.try_send(line), Err(TrySendError::Full(_))) {
                listener.lost += 1;
            }
        }
    }

    /// Tells everybody what they did not hear, and that they are still heard. `lost` events never left the kernel.
    pub fn beat(&mut self, lost: u64) {
        for listener in &mut self.listeners {
            listener.lost += lost;
            let line = if listener.lost == 0 { Line::Alive } else { Line::Lost { events: listener.lost } };
            if listener.lines.try_send(line).is_ok() {
                listener.lost = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::addr::Be16;

    use super::*;

    fn to_port(port: u16) -> Event {
        Event { destination_port: Be16::new(port), ..Event::default() }
    }

    fn on_port(port: u16) -> Selection {
        Selection { port: Some(port), ..Selection::default() }
    }

    fn ports(lines: &mut mpsc::Receiver<Line>) -> Vec<u16> {
        std::iter::from_fn(|| lines.try_recv().ok())
            .map(|line| if let Line::Packet(packet) = line { packet.destination_port } else { 0 })
            .collect()
    }

    #[test]
    fn everybody_hears_what_they_asked_for() {
        let mut hub = Hub::default();
        let (mut one, _) = hub.add(on_port(1));
        let (mut all, _) = hub.add(Selection::default());
        for port in [1, 2, 1] {
            hub.tell(&to_port(port), 0);
        }
        assert_eq!((ports(&mut one), ports(&mut all)), (vec![1, 1], vec![1, 2, 1]));
    }

    #[test]
    fn the_filter_follows_who_is_there() {
        let mut hub = Hub::default();
        assert_eq!(hub.sweep(), None);
        let (one, _) = hub.add(on_port(1));
        let (two, _) = hub.add(on_port(2));
        assert_eq!(hub.sweep(), Some(Filter::default()));
        drop(one);
        assert_eq!(hub.sweep(), Some(on_port(2).filter()));
        drop(two);
        assert_eq!(hub.sweep(), None);
    }

    #[test]
    fn what_a_slow_listener_misses_is_counted_and_told_once() {
        let mut hub = Hub::default();
        let (mut lines, _) = hub.add(Selection::default());
        for _ in 0..WAITING + 3 {
            hub.tell(&to_port(1), 0);
        }
        hub.beat(4); // nobody can be told yet
        assert_eq!(ports(&mut lines).len(), WAITING);
        hub.beat(0);
        hub.beat(0);
        assert_eq!(lines.try_recv(), Ok(Line::Lost { events: 7 }));
        assert_eq!(lines.try_recv(), Ok(Line::Alive));
    }
}
