"""The sandbox's page, in a real browser, beside real runs: both languages, keyboard only, phone, and 5,000 groups."""

import json
import re

import pytest
from conftest import PHONE, fits, work
from playwright.sync_api import expect

SMALL = ["--groups", "12", "--products", "60"]
WORDS = {
    "en": {"title": "Sandbox", "step": "Both sides are in step.", "import": "Import products", "other": "中文"},
    "zh-CN": {"title": "沙箱", "step": "两端一致。", "import": "导入产品", "other": "English"},
}
# How long the page of 5,000 groups may work until it is drawn.
MOST_MS = 2000


@pytest.fixture(autouse=True)
def patience():
    expect.set_options(timeout=120_000)


def tile(page, label):
    return page.locator(".tiles div", has=page.get_by_text(label, exact=True)).locator("dd")


@pytest.mark.parametrize("lang", ["en", "zh-CN"])
def test_the_page_follows_a_run_and_what_people_do(sandbox, opened, tmp_path, lang):
    box, words = sandbox(*SMALL), WORDS[lang]
    page = opened(box.page, lang)
    assert page.locator("html").get_attribute("lang") == lang
    expect(page.get_by_role("heading", level=1)).to_have_text(words["title"])
    run = box.sync(tmp_path)
    assert json.loads(run.stdout)["status"] == "succeeded", run.stderr
    expect(page.locator("#glance")).to_contain_text(words["step"])
    expect(page.locator("#calls")).to_contain_text("/v1/product/list")
    page.get_by_role("button", name=words["import"]).click()
    expect(page.locator("#glance")).not_to_contain_text(words["step"])
    box.sync(tmp_path)
    expect(page.locator("#glance")).to_contain_text(words["step"])
    page.get_by_role("link", name=words["other"]).click()
    expect(page.locator("html")).not_to_have_attribute("lang", lang)
    page.reload()
    expect(page.locator("html")).not_to_have_attribute("lang", lang)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_closed_and_open(sandbox, opened, accessible, tmp_path, scheme):
    box = sandbox(*SMALL, "--dirty")
    box.sync(tmp_path)
    for lang in WORDS:
        page = opened(box.page, lang, color_scheme=scheme)
        expect(page.locator("#calls td").first).to_be_visible()
        accessible(page)
        page.locator("#tree summary").first.click()
        product = page.locator("#tree .product summary").first
        product.click()
        expect(page.locator("#tree input[name=cost]").first).to_be_visible()
        accessible(page)


def test_the_page_fits_a_phone(sandbox, opened, tmp_path):
    box = sandbox(*SMALL)
    box.sync(tmp_path)
    for lang in WORDS:
        page = opened(box.page, lang, viewport=PHONE)
        assert fits(page)
        page.locator("#tree summary").first.click()
        page.locator("#tree .product summary").first.click()
        expect(page.locator("#tree input[name=cost]").first).to_be_visible()
        assert fits(page)


def tab_to(page, condition, what):
    for _ in range(300):
        page.keyboard.press("Tab")
        if page.evaluate(f"(() => {{ const one = document.activeElement; return {condition}; }})()"):
            return
    raise AssertionError(f"no way to {what} by keyboard")


def test_the_keyboard_imports_opens_edits_and_breaks(sandbox, opened):
    page = opened(sandbox(*SMALL).page)
    expect(tile(page, "products at OKKI")).to_have_text("60")
    tab_to(page, "one.id === 'do-import'", "the import")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text("Done.")
    expect(tile(page, "products at OKKI")).to_have_text("70")
    tab_to(page, "one.id === 'do-break'", "the faults")
    page.keyboard.press("Enter")
    expect(page.locator("#faults")).to_have_text("1 faults wait for their calls.")
    tab_to(page, "one.matches('#tree summary')", "the tree")
    page.keyboard.press("Enter")
    expect(page.locator("#tree .product").first).to_be_visible()
    tab_to(page, "one.matches('#tree .product summary')", "a product")
    page.keyboard.press("Enter")
    tab_to(page, "one.matches('#tree input[name=cost]')", "its cost")
    page.keyboard.press("Control+A")
    page.keyboard.type("1234.50")
    page.keyboard.press("Enter")
    expect(page.locator("#tree .cost", has_text="1234.50").first).to_be_visible()


def test_a_name_with_markup_is_shown_and_does_nothing(sandbox, opened, tmp_path):
    box = sandbox(*SMALL)
    page = opened(box.page)
    page.locator("#tree summary").first.click()
    page.locator("#tree .product summary").first.click()
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>"
    page.locator("#tree .product input[name=name]").first.fill(hostile)
    page.locator("#tree .product").first.get_by_role("button", name="Save").click()
    expect(page.locator("#tree bdi", has_text=hostile).first).to_be_visible()
    box.sync(tmp_path)
    expect(page.locator("#glance")).to_contain_text("Both sides are in step.")
    page.reload()
    assert page.title() == "Sandbox · okki-sync"
    assert page.locator("main img").count() == 0


def test_what_is_wrong_in_a_form_is_said(sandbox, opened):
    page = opened(sandbox(*SMALL).page)
    page.locator("#tree summary").first.click()
    page.locator("#tree .product summary").first.click()
    page.locator("#tree .product input[name=cost]").first.fill("cheap")
    page.locator("#tree .product").first.get_by_role("button", name="Save").click()
    expect(page.locator("#said")).to_contain_text("A cost is digits")
    assert page.locator("#tree .product input[name=cost]").first.input_value() == "cheap", "what was typed stays"


def test_the_page_works_without_its_script(sandbox, opened):
    page = opened(sandbox(*SMALL).page, java_script_enabled=False)
    expect(tile(page, "products at OKKI")).to_have_text("60")
    page.get_by_role("button", name="Import products").click()
    expect(tile(page, "products at OKKI")).to_have_text("70")
    page.locator("#tree summary").first.click()
    page.locator("#tree").get_by_role("link", name="show").first.click()
    expect(page.locator("#tree .product").first).to_be_visible()


def test_a_foreign_page_can_change_nothing(sandbox, browser):
    box, page = sandbox(*SMALL), browser.new_page()
    # A page of another origin: the sandbox's own OKKI port.
    page.goto(re.search(r"http://127\.0\.0\.1:\d+", box.variables["OKKI_BASE_URL"]).group() + "/x")
    page.set_content(f'<form method="post" action="{box.page}do"><input name="do" value="mend"><button>go</button></form>')
    with page.expect_response(lambda answer: answer.url.endswith("/do")) as answer:
        page.get_by_role("button").click()
    assert answer.value.status == 403
    page.close()


@pytest.mark.parametrize("lang", ["en", "zh-CN"])
def test_5000_groups_open_within_two_seconds(sandbox, opened, lang):
    box = sandbox("--groups", "5000", "--products", "20000")
    page = opened("about:blank", lang)

    def read_and_open():
        page.goto(box.page)
        page.locator("#tree summary").first.click()
        expect(page.locator("#tree .tree .tree").first).to_be_visible()

    took = work(page, read_and_open)
    assert took < MOST_MS, f"{took:.0f} ms"
