//! `completions` and `man`: what a shell and `man` know of the command line, made from its definition in the language of
//! whoever calls them.

use super::args::Shell;
use super::help;
use super::term::{Screen, print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE};
use crate::words::{Lang, Message, say};

const PROGRAM: &str = "okki-sync";

/// What clap_mangen writes itself, and what stands in its place: whole lines, and pieces of lines.
const IN_CHINESE: [(&str, &str); 13] = [
    (".SH NAME\n", ".SH 名称\n"),
    (".SH SYNOPSIS\n", ".SH 概要\n"),
    (".SH DESCRIPTION\n", ".SH 描述\n"),
    (".SH OPTIONS\n", ".SH 选项\n"),
    (".SH SANDBOX\n", ".SH 沙箱\n"),
    (".SH SUBCOMMANDS\n", ".SH 命令\n"),
    (".SH EXTRA\n", ".SH 退出状态\n"),
    (".SH VERSION\n", ".SH 版本\n"),
    ("\\fIsubcommands\\fR", "\\fI命令\\fR"),
    ("[default: ", "[默认值："),
    ("[possible values: ", "[可选值："),
    ("Possible values:", "可选值："),
    ("[env: ", "[环境变量："),
];
/// Lines of Han characters break between any two of them: groff knows that from this file of its own.
const BREAK_CHINESE: &str = ".mso zh.tmac\n";

/// `completions`.
pub(super) fn completions(screen: Screen, shell: Shell) -> u8 {
    use clap_complete::Shell as Known;
    let mut script = Vec::new();
    let known = match shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    clap_complete::generate(known, &mut help::command(screen.lang), PROGRAM, &mut script);
    print(&String::from_utf8_lossy(&script));
    EXIT_OK
}

/// `man`: the page of the program, or of one command.
pub(super) fn man(screen: Screen, words: &[String]) -> u8 {
    let mut command = help::command(screen.lang);
    let mut name = PROGRAM.to_owned();
    for word in words {
        let inner = command.get_subcommands().find(|inner| inner.get_name() == word && !inner.is_hide_set());
        let Some(inner) = inner.cloned() else {
            let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let known = match known.is_empty() {
                true => say!("nothing"),
                false => Message::from(known.join(", ")),
            };
            let word = sanitize(word, 60);
            print_error(&screen.say(&say!(
                "error: {name} has no command {word}; it has {known}",
                name,
                word,
                known,
            )));
            return EXIT_USAGE;
        };
        name = format!("{name}-{word}");
        command = inner;
    }
    let mut page = Vec::new();
    match clap_mangen::Man::new(command.display_name(name)).render(&mut page) {
        Ok(()) => {
            print(&in_language(&String::from_utf8_lossy(&page), screen.lang));
            EXIT_OK
        }
        Err(error) => {
            print_error(&screen.say(&say!("error: the man page cannot be printed: {error}", error)));
            EXIT_FAILURE
        }
    }
}

/// The page with the headings of its language.
fn in_language(page: &str, lang: Lang) -> String {
    match lang {
        Lang::En => page.to_owned(),
        Lang::Zh => {
            let page =
                IN_CHINESE.iter().fold(page.to_owned(), |page, (english, here)| page.replace(english, here));
            format!("{BREAK_CHINESE}{page}")
        }
    }
}
