//! Every text of a page, in both languages. A struct: a language that lacks one does not compile.

use crate::catalogue::RowKind;
use crate::changes::ChangeAction as Action;
use crate::report::Status;
use crate::words::Lang;

/// The texts of one language. What stands in backticks is code; `{n}` is filled in.
pub(super) struct Words {
    pub lang: Lang,
    /// As [`Status`] has them: succeeded, partial, paused, failed.
    statuses: [&'static str; 4],
    /// What to do after each of them, where no error says more.
    advices: [&'static str; 4],
    actions: [&'static str; 3],
    kinds: [&'static str; 3],
    pub run_of: &'static str,
    pub started: &'static str,
    pub took: &'static str,
    pub mode: &'static str,
    pub run: &'static str,
    pub status: &'static str,
    pub next: &'static str,
    pub look_at_rows: &'static str,
    pub come_back: &'static str,
    pub counts: &'static str,
    pub groups: &'static str,
    pub products: &'static str,
    pub create: &'static str,
    pub update: &'static str,
    pub delete: &'static str,
    pub unchanged: &'static str,
    pub written: &'static str,
    pub deleted: &'static str,
    pub set_aside: &'static str,
    pub remaining: &'static str,
    pub full_read: &'static str,
    pub changes_read: &'static str,
    pub changes: &'static str,
    pub not_recorded: &'static str,
    pub no_change: &'static str,
    pub absent: &'static str,
    pub old_unknown: &'static str,
    pub becomes: &'static str,
    pub more: &'static str,
    pub rows_aside: &'static str,
    pub none_aside: &'static str,
    pub rows_gone: &'static str,
    pub more_rows: &'static str,
    pub no_id: &'static str,
    pub calls: &'static str,
    pub calls_shown: &'static str,
    pub timeline_shown: &'static str,
    pub timeline_told: &'static str,
    pub calls_in: &'static str,
    pub calls_made: &'static str,
    pub answered: &'static str,
    pub failed_calls: &'static str,
    pub waited: &'static str,
    pub from_start: &'static str,
    pub side: &'static str,
    pub source: &'static str,
    pub target: &'static str,
    pub first_calls: &'static str,
    pub repeats: &'static str,
    pub throttled: &'static str,
    pub last_runs: &'static str,
    pub last_runs_shown: &'static str,
    pub no_last_runs: &'static str,
    pub as_table: &'static str,
    pub footer: &'static str,
}

impl Words {
    pub(super) fn of(lang: Lang) -> &'static Self {
        match lang {
            Lang::En => &ENGLISH,
            Lang::Zh => &CHINESE,
        }
    }

    pub(super) fn status(&self, status: Status) -> &'static str {
        of_status(self.statuses, status)
    }

    pub(super) fn advice(&self, status: Status) -> &'static str {
        of_status(self.advices, status)
    }

    pub(super) fn action(&self, action: Action) -> &'static str {
        let [create, update, delete] = self.actions;
        match action {
            Action::Create => create,
            Action::Update => update,
            Action::Delete => delete,
        }
    }

    pub(super) fn kind(&self, kind: RowKind) -> &'static str {
        let [group, product, record] = self.kinds;
        match kind {
            RowKind::Group => group,
            RowKind::Product => product,
            RowKind::Record => record,
        }
    }
}

fn of_status([succeeded, partial, paused, failed]: [&'static str; 4], status: Status) -> &'static str {
    match status {
        Status::Succeeded => succeeded,
        Status::Partial => partial,
        Status::Paused => paused,
        Status::Failed => failed,
    }
}

/// A text with its `{name}`s filled in.
pub(super) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

static ENGLISH: Words = Words {
    lang: Lang::En,
    statuses: ["succeeded", "done in part", "paused", "failed"],
    advices: [
        "Nothing: everything that was planned is done.",
        "The rows below could not go through; everything else is done.",
        "Nothing is lost: the next run goes on from here.",
        "Look at the run's log.",
    ],
    actions: ["created", "updated", "deleted"],
    kinds: ["group", "product", "record"],
    run_of: "Run of",
    started: "started",
    took: "took",
    mode: "mode",
    run: "run",
    status: "status",
    next: "What to do next",
    look_at_rows: "Look at the rows that were set aside: correct them at the source, or `[record]` in the pipeline file; the next run sends them.",
    come_back: "The next run makes sense {wait} after this one.",
    counts: "In numbers",
    groups: "groups read",
    products: "products read",
    create: "to create",
    update: "to update",
    delete: "to delete",
    unchanged: "unchanged",
    written: "rows written",
    deleted: "rows deleted",
    set_aside: "set aside",
    remaining: "left for the next run",
    full_read: "The whole source was read.",
    changes_read: "Of the source only changes were read.",
    changes: "What changed",
    not_recorded: "What this run changed row by row is not recorded in the store. These are the numbers of its plan.",
    no_change: "This run changed no row.",
    absent: "nothing",
    old_unknown: "not known",
    becomes: "becomes",
    more: "… and {n} more, which this page does not show",
    rows_aside: "Rows set aside",
    none_aside: "No row was set aside.",
    rows_gone: "The file with these rows is no longer in the store.",
    more_rows: "… and {n} more, which are in the file of the quarantine",
    no_id: "without an id",
    calls: "Calls to both sides",
    calls_shown: "Each bar is all calls of this run to one side, logins included. This run report counts calls and does not say when each one was made.",
    timeline_shown: "Calls since the start of the run, in stretches of {stretch}, logins and repeats included. The band below a side is when one of its calls waited: for its turn, for a limit, or before it was repeated.",
    timeline_told: "{side}: {calls} calls, of which {failed} failed and {throttled} were answered with the wish for a slower pace; waited {waited}.",
    calls_in: "{side}: calls in {stretch}",
    calls_made: "calls",
    answered: "answered well",
    failed_calls: "failed",
    waited: "waited",
    from_start: "from",
    side: "side",
    source: "OKKI",
    target: "Target",
    first_calls: "first attempts",
    repeats: "repeats",
    throttled: "answers that asked for a slower pace",
    last_runs: "The last runs",
    last_runs_shown: "A bar is a run, the newest to the right; its height is its duration. The bar with a line below it is this run. ✓ succeeded, ! done in part, ‖ paused, ✗ failed.",
    no_last_runs: "The other runs are not known here.",
    as_table: "The same as a table",
    footer: "This page opens without a network and holds no script. Times are UTC.",
};

static CHINESE: Words = Words {
    lang: Lang::Zh,
    statuses: ["成功", "部分完成", "已暂停", "失败"],
    advices: [
        "无需处理：计划的内容已全部完成。",
        "下列行无法同步；其余已全部完成。",
        "没有任何丢失：下次运行会从此处继续。",
        "请查看该运行的日志。",
    ],
    actions: ["已新增", "已更新", "已删除"],
    kinds: ["分组", "产品", "目标行"],
    run_of: "运行报告：",
    started: "开始时间",
    took: "耗时",
    mode: "模式",
    run: "运行",
    status: "状态",
    next: "下一步怎么办",
    look_at_rows: "查看下方隔离的行：在源端更正，或修改管道文件中的 `[record]`；下次运行会发送它们。",
    come_back: "本次运行结束 {wait}后适合再次运行。",
    counts: "数字一览",
    groups: "读取的分组",
    products: "读取的产品",
    create: "待新增",
    update: "待更新",
    delete: "待删除",
    unchanged: "无变化",
    written: "已写入的行",
    deleted: "已删除的行",
    set_aside: "隔离区",
    remaining: "留待下次运行",
    full_read: "本次读取了整个数据源。",
    changes_read: "本次只读取了数据源的变更。",
    changes: "变更内容",
    not_recorded: "存储中没有逐行记录本次运行的变更。以下是其计划的数字。",
    no_change: "本次运行没有改动任何行。",
    absent: "无",
    old_unknown: "未知",
    becomes: "变为",
    more: "…… 另有 {n} 项，本页不显示",
    rows_aside: "隔离的行",
    none_aside: "没有行进入隔离区。",
    rows_gone: "存储中已没有这些行的文件。",
    more_rows: "…… 另有 {n} 行，见隔离区文件",
    no_id: "没有 id",
    calls: "对两端的调用",
    calls_shown: "每个条形是本次运行对一端的全部调用，含登录。此运行报告只统计调用次数，不含每次调用的时间。",
    timeline_shown: "自运行开始以来的调用，每 {stretch}一格，含登录和重试。每端下方的色带表示有调用在等待：等轮到自己、等限额，或在重试之前等待。",
    timeline_told: "{side}：{calls} 次调用，其中 {failed} 次失败，{throttled} 次被要求放慢；等待 {waited}。",
    calls_in: "{side}：每 {stretch}的调用",
    calls_made: "调用",
    answered: "正常应答",
    failed_calls: "失败",
    waited: "等待",
    from_start: "起始",
    side: "端",
    source: "OKKI",
    target: "目标端",
    first_calls: "首次尝试",
    repeats: "重试",
    throttled: "要求放慢的应答",
    last_runs: "最近的运行",
    last_runs_shown: "一个条形是一次运行，最新的在右；高度为耗时。下方带横线的是本次运行。✓ 成功，! 部分完成，‖ 已暂停，✗ 失败。",
    no_last_runs: "此处不知道其他运行。",
    as_table: "以表格显示",
    footer: "本页无需网络即可打开，不含脚本。时间为 UTC。",
};
