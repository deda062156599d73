"""A run as a page, in a real browser: both languages, keyboard only, phone, paper, and 5,000 changed groups."""

import pytest
from conftest import PHONE, fits, sample, work

LANGUAGES = ["en", "zh-CN"]
PAGES = ["failed", "partial"]
NEXT = {"en": "What to do next", "zh-CN": "下一步怎么办"}
UPDATED = {"en": "updated", "zh-CN": "已更新"}
CALLS = {"en": "Calls to both sides", "zh-CN": "对两端的调用"}
# How long a page of 5,000 changed groups may work until it is open and its list is drawn. People are promised two seconds by
# the clock; half of that is left to a machine that is busy with something else.
MOST_MS = 1000


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_in_its_language_and_asks_nobody_for_anything(opened, name, lang):
    page = opened("about:blank")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.goto(sample(name, lang))
    assert page.locator("html").get_attribute("lang") == lang
    assert page.get_by_role("heading", name=NEXT[lang]).is_visible()
    assert asked == [sample(name, lang)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_with_everything_open(opened, accessible, name, lang, scheme):
    page = opened(sample(name, lang), color_scheme=scheme)
    accessible(page)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    accessible(page)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_with_everything_open(opened, name, lang):
    page = opened(sample(name, lang), viewport=PHONE)
    assert fits(page)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert fits(page)


def test_a_name_with_markup_is_shown_and_does_nothing(opened):
    page = opened(sample("partial", "en"))
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.get_by_text("<script>document.title='owned'</script>").is_visible()
    assert page.get_by_text('"<script>alert(1)</script>"').is_visible()
    assert page.title() == "done in part · acme · okki-sync"
    assert page.locator("script, b").count() == 0


def test_the_policy_stops_a_script_that_gets_in(browser):
    page = browser.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(sample("failed", "en"))
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.owned = 1'}))")
    assert page.evaluate("window.owned") is None
    assert any("Content Security Policy" in text for text in refused)
    page.close()


def test_the_keyboard_opens_the_tree_down_to_the_values(opened):
    page = opened(sample("partial", "en"))

    def tab_to(text):
        for _ in range(400):
            page.keyboard.press("Tab")
            if text in page.evaluate("document.activeElement.textContent"):
                return
        raise AssertionError(f"no way to {text!r} by keyboard")

    tab_to("updated")
    page.keyboard.press("Enter")
    tab_to("户外照明 Outdoor 11 ")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
    page.keyboard.press("Enter")
    assert page.locator("details[open] details[open] del").all_inner_texts() == ['"Old <b>name</b>"', "2999.10", "2999.10"]
    assert page.locator("details[open] details[open] ins").first.inner_text() == '"New name"'


def test_paper_shows_what_is_closed_on_the_screen(opened):
    page = opened(sample("failed", "en"))
    raw = page.locator("pre").first
    assert not raw.is_visible()
    page.emulate_media(media="print")
    assert raw.evaluate("one => one.getBoundingClientRect().height > 10")
    assert len(page.pdf()) > 10_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_calls_and_waits_are_a_picture_with_words_and_a_table(opened, lang, scheme):
    page = opened(sample("partial", lang), color_scheme=scheme)
    picture = page.locator("svg.timeline")
    assert picture.evaluate("one => one.getBoundingClientRect().height > 150")
    named = page.get_by_role("img", name=CALLS[lang])
    assert "250" in named.locator("desc").text_content()
    box = picture.bounding_box()
    for part in ["path.first", "path.repeat", "path.throttled", "path.wait"]:
        drawn = picture.locator(part).first.bounding_box()
        assert drawn["width"] > 0 and drawn["x"] >= box["x"] and drawn["x"] + drawn["width"] <= box["x"] + box["width"] + 1
    ends = picture.locator("text").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert max(ends) <= box["x"] + box["width"] + 1, "no label is cut off"
    page.locator("section", has=picture).locator("summary").click()
    rows = page.locator("section", has=picture).locator("details[open] tbody tr")
    assert rows.count() == 56 + 5


@pytest.mark.parametrize("lang", LANGUAGES)
def test_5000_changed_groups_open_within_two_seconds(opened, lang):
    page = opened("about:blank")

    def read_and_open():
        page.goto(sample("large", lang))
        page.locator("details.action > summary", has_text=UPDATED[lang]).click()

    took = work(page, read_and_open)
    opened_list = page.locator("details.action[open]")
    assert opened_list.locator("> .tree > li").first.is_visible()
    last = opened_list.locator("li", has_text="户外照明 Outdoor 4999")
    assert last.text_content().count("→") == 4, "every row is there with its values"
    assert took < MOST_MS, f"{took:.0f} ms"
