//! Every key of the store, in one table. README, reference and the function's IAM role are held against it by tests.
//!
//! What stands under `cache/` is large, is written anew often, and costs time if it is lost, never rows: the deployed
//! bucket keeps its former versions for a day, and can tell it from the rest by its folder only.

/// The folder of pipelines, which is the list of connections of a fleet.
pub(crate) const PIPELINES: &str = "pipelines";
/// What a connection syncs; a `.json` file may stand in its place.
const PIPELINE: &str = "pipelines/<connection>.toml";
/// What the target has acknowledged: a fingerprint for each row, and refused rows.
const STATE: &str = "state/<connection>.state";
/// The state as the last run that saved found it.
const STATE_PREVIOUS: &str = "cache/<connection>.state.previous";
/// The row ledger: the content that the target has acknowledged. What the last runs changed, what they changed before,
/// and the rest.
const LEDGER_LATEST: &str = "state/<connection>.ledger.latest";
const LEDGER_RECENT: &str = "state/<connection>.ledger.recent";
const LEDGER: &str = "state/<connection>.ledger";
/// Who runs, and what its runs know of the target's limit.
const RUN: &str = "state/<connection>.run";
/// The calls of an account's last minute, and until when it wants none. The name is a hash: it shows no key.
const LIMITS: &str = "limits/<account>.json";
/// The products of the last read, to which the next one adds what changed.
const PRODUCTS: &str = "cache/<connection>.products";
/// Where version 0.1.0 kept the products; it is read while there are no newer ones, and never written.
const FORMER_PRODUCTS: &str = "state/<connection>.products";
/// The products of a verification (or a rebuild) that was interrupted while it read the source.
const COMPARED_PRODUCTS: &str = "cache/<connection>.compared-products";
/// The target's rows as far as a verification or a rebuild has read them back; empty when it is done.
const READ_BACK: &str = "cache/<connection>.read-back";
/// The operating system's lock of the process that runs.
const RUN_LOCK: &str = "state/<connection>.lock";
/// The operating system's lock of a save: a directory has no conditional put.
const SAVE_LOCK: &str = "<key>.save";
/// The report of a run.
const REPORT: &str = "reports/<connection>/<run>.json";
/// The page of the last run, where `report.html` asks for it.
const REPORT_PAGE: &str = "reports/<connection>/latest.html";
/// The rows that a run left out, one JSON object a line.
const QUARANTINE: &str = "quarantine/<connection>/<run>.jsonl";
/// The rows that a run changed, with old and new values.
const CHANGES: &str = "changes/<connection>/<run>.jsonl.zst";
/// What the chat group was told. A failure before the connection is known goes by the pipeline file's name.
const NOTICE: &str = "notices/<connection>.json";

fn of_connection(key: &str, connection: &str) -> String {
    key.replace("<connection>", connection)
}

fn of_run(key: &str, connection: &str, run_id: &str) -> String {
    of_connection(key, connection).replace("<run>", run_id)
}

/// The keys at which a connection's pipeline is looked for, in this order.
pub(crate) fn pipelines(connection: &str) -> [String; 2] {
    let toml = of_connection(PIPELINE, connection);
    let json = toml.replace(".toml", ".json");
    [toml, json]
}

pub(crate) fn state(connection: &str) -> String {
    of_connection(STATE, connection)
}

pub(crate) fn previous_state(connection: &str) -> String {
    of_connection(STATE_PREVIOUS, connection)
}

/// From the newest rows to the oldest.
pub(crate) fn ledger(connection: &str) -> [String; 3] {
    [LEDGER_LATEST, LEDGER_RECENT, LEDGER].map(|key| of_connection(key, connection))
}

pub(crate) fn run(connection: &str) -> String {
    of_connection(RUN, connection)
}

pub(crate) fn limits(account: &str) -> String {
    LIMITS.replace("<account>", account)
}

pub(crate) fn products(connection: &str) -> String {
    of_connection(PRODUCTS, connection)
}

pub(crate) fn former_products(connection: &str) -> String {
    of_connection(FORMER_PRODUCTS, connection)
}

pub(crate) fn compared_products(connection: &str) -> String {
    of_connection(COMPARED_PRODUCTS, connection)
}

pub(crate) fn read_back(connection: &str) -> String {
    of_connection(READ_BACK, connection)
}

pub(super) fn run_lock(connection: &str) -> String {
    of_connection(RUN_LOCK, connection)
}

pub(super) fn save_lock(key: &str) -> String {
    SAVE_LOCK.replace("<key>", key)
}

pub(crate) fn report(connection: &str, run_id: &str) -> String {
    of_run(REPORT, connection, run_id)
}

/// The folder of a connection's reports.
pub(crate) fn reports(connection: &str) -> String {
    let folder = REPORT.rsplit_once('/').map_or(REPORT, |(folder, _)| folder);
    of_connection(folder, connection)
}

/// The run whose report goes by this name in [`reports`]; `None` if it is another file.
pub(crate) fn run_of_report(name: &str) -> Option<&str> {
    name.strip_suffix(".json").filter(|run_id| is_run_id(run_id))
}

/// Whether this can name a run: `20261124T184316080Z-0dd1ac67`. It becomes part of paths, so no dots or slashes.
pub(crate) fn is_run_id(text: &str) -> bool {
    let digits =
        |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let hex = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split_once('-').is_some_and(|(time, unique)| {
        let parts = time.split_once('T').and_then(|(day, time)| Some((day, time.strip_suffix('Z')?)));
        parts.is_some_and(|(day, time)| digits(day, 8) && digits(time, 9)) && hex(unique)
    })
}

pub(crate) fn report_page(connection: &str) -> String {
    of_connection(REPORT_PAGE, connection)
}

pub(crate) fn quarantine(connection: &str, run_id: &str) -> String {
    of_run(QUARANTINE, connection, run_id)
}

pub(crate) fn changes(connection: &str, run_id: &str) -> String {
    of_run(CHANGES, connection, run_id)
}

/// The folder of a connection's changes.
pub(crate) fn changes_folder(connection: &str) -> String {
    let key = of_connection(CHANGES, connection);
    key.rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default()
}

/// The run whose changes a file of this name holds.
pub(crate) fn run_of_changes(name: &str) -> Option<&str> {
    let (_, name_of_run) = CHANGES.rsplit_once('/')?;
    name.strip_suffix(name_of_run.strip_prefix("<run>")?)
}

/// `name` is the connection's, or the pipeline file's where the connection is not known.
pub(crate) fn notice(name: &str) -> String {
    of_connection(NOTICE, name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::state::State;

    /// Who writes what a key names.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Written {
        /// People and deployments; the program only reads it.
        ByPeople,
        ByTheProgram,
        /// The program, and only where the store is a directory.
        InADirectory,
    }

    const KEYS: [(&str, Written); 18] = [
        (PIPELINE, Written::ByPeople),
        (STATE, Written::ByTheProgram),
        (STATE_PREVIOUS, Written::ByTheProgram),
        (LEDGER_LATEST, Written::ByTheProgram),
        (LEDGER_RECENT, Written::ByTheProgram),
        (LEDGER, Written::ByTheProgram),
        (RUN, Written::ByTheProgram),
        (LIMITS, Written::ByTheProgram),
        (PRODUCTS, Written::ByTheProgram),
        (COMPARED_PRODUCTS, Written::ByTheProgram),
        (READ_BACK, Written::ByTheProgram),
        (RUN_LOCK, Written::InADirectory),
        (SAVE_LOCK, Written::InADirectory),
        (REPORT, Written::ByTheProgram),
        (REPORT_PAGE, Written::ByTheProgram),
        (QUARANTINE, Written::ByTheProgram),
        (CHANGES, Written::ByTheProgram),
        (NOTICE, Written::ByTheProgram),
    ];

    fn file(name: &str) -> Option<String> {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).ok()
    }

    fn keys(written: Written) -> impl Iterator<Item = &'static str> {
        KEYS.into_iter().filter(move |(_, by)| *by == written).map(|(key, _)| key)
    }

    /// The folders of the store.
    fn folders(written: Written) -> BTreeSet<String> {
        keys(written).filter_map(|key| key.split_once('/')).map(|(folder, _)| folder.to_owned()).collect()
    }

    #[test]
    fn every_key_is_made_from_the_table() {
        assert_eq!(pipelines("acme"), ["pipelines/acme.toml", "pipelines/acme.json"]);
        let made = [
            state("acme"),
            previous_state("acme"),
            run("acme"),
            limits("0123456789abcdef"),
            products("acme"),
            former_products("acme"),
            compared_products("acme"),
            read_back("acme"),
            run_lock("acme"),
            save_lock("state/acme.run"),
            report("acme", "r1"),
            report_page("acme"),
            quarantine("acme", "r1"),
            notice("pipeline.toml"),
            changes("acme", "r1"),
        ];
        let [latest, recent, main] = ledger("acme");
        assert_eq!(latest, "state/acme.ledger.latest");
        assert_eq!(recent, "state/acme.ledger.recent");
        assert_eq!(main, "state/acme.ledger");
        assert_eq!(
            (changes_folder("acme").as_str(), run_of_changes("r1.jsonl.zst")),
            ("changes/acme", Some("r1"))
        );
        assert_eq!(
            made,
            [
                "state/acme.state",
                "cache/acme.state.previous",
                "state/acme.run",
                "limits/0123456789abcdef.json",
                "cache/acme.products",
                "state/acme.products",
                "cache/acme.compared-products",
                "cache/acme.read-back",
                "state/acme.lock",
                "state/acme.run.save",
                "reports/acme/r1.json",
                "reports/acme/latest.html",
                "quarantine/acme/r1.jsonl",
                "notices/pipeline.toml.json",
                "changes/acme/r1.jsonl.zst",
            ]
        );
    }

    #[test]
    fn only_the_report_of_a_run_is_one() {
        assert_eq!(reports("acme"), "reports/acme");
        let run_id = "20261124T184316080Z-0dd1ac67";
        assert_eq!(run_of_report(&format!("{run_id}.json")), Some(run_id));
        for other in
            ["latest.html", "r1.json", "20261124T184316080Z-0dd1ac67.json.part", "../x-12345678.json"]
        {
            assert_eq!(run_of_report(other), None, "{other}");
        }
    }

    /// The documents list the keys whole, or shorten what follows on a first one to its ending.
    #[test]
    fn the_documents_name_every_key_and_no_other() {
        let names: &[&str] = if file("docs/reference.md").is_some() {
            &["docs/reference.md", "docs/reference.zh-CN.md"]
        } else {
            &["README.md", "README.zh-CN.md"]
        };
        for name in names {
            let text = file(name).unwrap();
            let spans: BTreeSet<&str> =
                text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect();
            let is_named = |key: &str| {
                spans.contains(key)
                    || key.strip_prefix("state/<connection>").is_some_and(|ending| spans.contains(ending))
            };
            for key in keys(Written::ByPeople).chain(keys(Written::ByTheProgram)) {
                assert!(is_named(key), "{name} does not name {key}");
            }
            for span in spans.into_iter().filter(|span| span.contains("/<connection>")) {
                let is_known =
                    KEYS.iter().any(|(key, _)| *key == span) || span == pipelines("<connection>")[1];
                assert!(is_known, "{name} names {span}, which is no key");
            }
        }
    }

    /// The folders that a statement of the template allows.
    fn allowed(template: &str, statement: &str, action: &str) -> BTreeSet<String> {
        let (_, rest) = template.split_once(&format!("- Sid: {statement}\n")).unwrap();
        let text = rest.split("- Sid:").next().unwrap();
        assert!(text.contains(&format!("Action: {action}\n")), "{statement}: {text}");
        let folders = text.split("${Store.Arn}/").skip(1);
        folders.filter_map(|rest| rest.split_once("/*")).map(|(folder, _)| folder.to_owned()).collect()
    }

    #[test]
    fn the_function_may_read_what_people_write_and_write_the_rest() {
        let template = file("infra/template.yaml").unwrap();
        assert_eq!(allowed(&template, "ReadPipelines", "s3:GetObject"), folders(Written::ByPeople));
        let kept = allowed(&template, "KeepRecords", "[s3:GetObject, s3:PutObject]");
        assert_eq!(kept, folders(Written::ByTheProgram));
        assert!(kept.is_superset(&folders(Written::InADirectory)));
    }

    /// Rows that were created since the previous state would become orphans at the target.
    #[test]
    fn the_advice_for_a_damaged_state_is_a_rebuild_and_no_older_one() {
        let error = State::from_bytes(b"damaged", "acme", "t").unwrap_err();
        assert_eq!(error.help.as_deref(), Some("rebuild it with okki-sync state rebuild"));
        assert!(!error.to_string().contains("previous"), "{error}");
    }
}
