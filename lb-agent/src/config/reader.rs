//! Reads a configuration again and again, and of its services only those whose text changed.
//!
//! Invariant: what it yields is what [`parse`] yields. Whatever it cannot read in parts, everything with a mistake
//! among it, it gives to `parse` whole.

use std::{collections::HashMap, path::Path};

use super::{
    Config, ConfigErrors, MAX_FILE_BYTES,
    authorities::CaFiles,
    build, capacity_check, check, cluster_check, draft,
    draft_service::{self, DraftService},
    error::{Place, Problems},
    parse, read_bytes,
    split::{Parts, split},
    text_of,
    yaml::{self, Node, Value},
};

/// The services that were read last, by their text.
#[derive(Default)]
pub struct Reader {
    services: HashMap<Box<str>, Known>,
}

/// A service without mistakes.
struct Known {
    /// How many lines were before it.
    before: u64,
    service: DraftService,
}

impl Reader {
    /// Reads and checks a file, as [`super::load`] does.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(&mut self, path: &Path) -> Result<Config, ConfigErrors> {
        let name = path.display().to_string();
        let text = text_of(&name, read_bytes(path)?)?;
        self.parse(&name, &text, super::base_dir(path))
    }

    /// Checks a configuration given as text, as [`parse`] does.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(&mut self, file_name: &str, text: &str, base_dir: &Path) -> Result<Config, ConfigErrors> {
        if text.len() as u64 <= MAX_FILE_BYTES
            && let Some(config) = split(text).and_then(|parts| self.in_parts(file_name, &parts, base_dir))
        {
            return Ok(config);
        }
        parse(file_name, text, base_dir)
    }

    /// The configuration that the parts make, if there is nothing wrong with it.
    fn in_parts(&mut self, file_name: &str, parts: &Parts<'_>, base_dir: &Path) -> Option<Config> {
        let root = rest(yaml::read(file_name, &parts.rest).ok()?, parts.line)?;
        let mut problems = Problems::of(file_name);
        let mut draft = draft::draft(&root, base_dir, &mut problems)?;
        draft.services = self.services(file_name, parts)?;
        check::check(&draft, &mut problems);
        cluster_check::check(&draft, &mut problems);
        capacity_check::check(&draft, &mut problems);
        let (config, warnings) = problems.finish(build::build(file_name, draft)).ok()?;
        Some(Config { warnings, ..config? })
    }

    /// Every service, with its places in this file. Those that were not in it are forgotten.
    fn services(&mut self, file_name: &str, parts: &Parts<'_>) -> Option<Vec<DraftService>> {
        let mut services = Vec::with_capacity(parts.items.len());
        let mut now = HashMap::with_capacity(parts.items.len());
        for (before, text) in &parts.items {
            let (text, mut known) = match self.services.remove_entry(*text) {
                Some(entry) => entry,
                None => ((*text).into(), Known { before: 0, service: service(file_name, text)? }),
            };
            known.service.shift(known.before, *before);
            known.before = *before;
            services.push(known.service.clone());
            now.insert(text, known);
        }
        self.services = now;
        Some(services)
    }
}

/// The rest of the file, with an empty list where its services were: an empty value there now, or it is no such file.
fn rest(mut root: Node, line: u64) -> Option<Node> {
    let Value::Map(entries) = &mut root.value else { return None };
    let (_, node) = entries.iter_mut().find(|(key, _)| key.name == "services" && key.place.line == line)?;
    if !matches!(node.value, Value::Null) {
        return None;
    }
    node.value = Value::List(Vec::new());
    Some(root)
}

/// The one service in `text`, if there is nothing to remark on it. Lines are counted from its own first.
fn service(file_name: &str, text: &str) -> Option<DraftService> {
    // What a file beside this one holds is not to be remembered.
    if text.contains("File") {
        return None;
    }
    let root = yaml::read(file_name, text).ok()?;
    let Value::List(items) = &root.value else { return None };
    let [item] = &items[..] else { return None };
    let mut problems = Problems::of(file_name);
    let service = draft_service::service(item, &mut CaFiles::new(Path::new("")), &mut problems)?;
    let ((), warnings) = problems.finish(()).ok()?;
    warnings.is_empty().then_some(service)
}

impl Place {
    /// The same place where `now` lines are before the text, and not `then`.
    pub(super) const fn shift(&mut self, then: u64, now: u64) {
        self.line = self.line - then + now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "node: {name: n, addresses: [10.0.1.2]}\ninterfaces: [{name: eth0}]\n\
                        secret: 000102030405060708090a0b0c0d0e0f\nservices:\n";

    /// What both ways of reading make of a text, with every place.
    fn both(reader: &mut Reader, text: &str) -> [Result<Config, ConfigErrors>; 2] {
        let base = Path::new("/");
        [reader.parse("f", text, base), parse("f", text, base)]
    }

    fn service_text(number: usize, backends: &[u8]) -> String {
        let backends: Vec<_> = backends.iter().map(|last| format!("{{address: 10.1.0.{last}}}")).collect();
        format!(
            "  - name: s{number}\n    vips: [192.0.2.{number}]\n    ports: [80]\n    ringSize: 128\n    backends: [{}]\n",
            backends.join(", ")
        )
    }

    #[test]
    fn unchanged_services_are_not_read_again() {
        let mut reader = Reader::default();
        let texts = [service_text(1, &[1]), service_text(2, &[2])];
        reader.parse("f", &format!("{HEAD}{}{}", texts[0], texts[1]), Path::new("/")).unwrap();
        assert_eq!(reader.services.len(), 2);
        // Whoever reads it again would see the mark.
        let marked = reader.services.get_mut(&*texts[1]).unwrap();
        marked.service.name.value = "marked".to_owned();
        let changed = format!("{HEAD}{}\n\n{}", service_text(1, &[3]), texts[1]);
        let config = reader.parse("f", &changed, Path::new("/")).unwrap();
        let names: Vec<_> = config.desired.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["marked", "s1"]);
        assert_eq!(reader.services.len(), 2, "what is gone is forgotten");
    }

    #[test]
    fn what_is_no_plain_list_is_read_whole() {
        let quoted = "node: {name: n, addresses: [10.0.1.2]}\ninterfaces: [{name: eth0}]\n\
                      secret: 000102030405060708090a0b0c0d0e0f\nsocket: \"/a\nservices:\n  - x\n  b\"\n";
        let services = format!("{}{}", service_text(1, &[1]), service_text(2, &[2, 2]));
        let texts = [
            format!("{HEAD}{services}"),
            format!("{HEAD}  - x\n{services}"),
            format!("{HEAD}{services}services:\n{services}"),
            format!("{HEAD}{services}http: [\n"),
            format!("{HEAD}{services}---\nb: 1\n"),
            format!("{HEAD}  - {{name: s, vips: [192.0.2.1], ports: [80], colour: red}}\n"),
            format!("{HEAD}  - - {{name: s}}\n  - []\n"),
            format!("{HEAD}{services}    sourceRanges: [10.0.0.0/8]\n"),
            quoted.to_owned(),
        ];
        for text in texts {
            let [parts, whole] = both(&mut Reader::default(), &text);
            assert_eq!(parts, whole, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_history_of_files_reads_as_each_of_them_whole(
            files in proptest::collection::vec(
                (proptest::collection::btree_map(1usize..6, proptest::collection::btree_set(1u8..5, 0..4), 0..5), 0usize..3, any::<bool>()),
                1..8,
            ),
        ) {
            let mut reader = Reader::default();
            for (services, blank, tail) in files {
                let mut text = format!("{}{HEAD}", "\n".repeat(blank));
                for (number, backends) in services {
                    text += &service_text(number, &backends.into_iter().collect::<Vec<_>>());
                    text += if blank == 1 { "# remark\n" } else { "" };
                }
                text += if tail { "http: off\n" } else { "" };
                let [parts, whole] = both(&mut reader, &text);
                prop_assert_eq!(parts, whole, "{}", text);
            }
        }
    }
}
