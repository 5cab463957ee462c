#!/usr/bin/env python3
"""The console, as a browser shows it and as hands, keyboards and screen readers use it. In a real Chromium, without a screen.

    console_test.py --url http://127.0.0.1:PORT/ --world w --machine hsm-a --other hsm-b [--pictures FOLDER]
    console_test.py --url http://127.0.0.1:PORT/ --read-only

What has to happen outside the browser is asked for with a line on standard output, `ASK what`, and waited for as it shows.
"""

import argparse
import http.client
import json
import pathlib
import urllib.parse

import axe_core_python
from seejob import expect
from webdriver import ELEMENT, Browser, Key, wait_for

# The least contrast that text may have: WCAG's AA.
CONTRAST = 4.5
NARROW = 400

# Each text that is shown, with its contrast, where that is too little. Texts of SVG are filled, others coloured.
CONTRASTS = """
const least = arguments[0];
const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
const part = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([red, green, blue]) => 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const [red, green, blue, opaque = 1] = parse(getComputedStyle(at).backgroundColor);
    if (opaque === 1) return [red, green, blue];
    if (opaque > 0) throw new Error('a ground that can be seen through: ' + at.outerHTML.slice(0, 80));
  }
  throw new Error('no ground');
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const bad = [];
let seen = 0;
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.textContent.trim() || !element.checkVisibility() || element.closest('noscript, .unseen')) continue;
  const style = getComputedStyle(element);
  const own = light(parse(element instanceof SVGElement ? style.fill : style.color));
  const other = light(ground(element));
  const contrast = (Math.max(own, other) + 0.05) / (Math.min(own, other) + 0.05);
  seen += 1;
  if (contrast < least) bad.push([texts.currentNode.textContent, contrast]);
}
return [seen, bad];
"""

# What a page must not have, whoever reads it.
STRUCTURE = """
const wrong = [];
const is = (holds, what) => { if (!holds) wrong.push(what); };
is(document.documentElement.lang === 'en', 'no language');
is(document.title.length > 0, 'no title');
for (const landmark of ['header', 'main', 'footer']) is(document.querySelectorAll('body > ' + landmark).length === 1, 'one ' + landmark);
is([...document.querySelectorAll('h1')].filter((h1) => h1.checkVisibility()).length === 1, 'one h1');
const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
is(new Set(ids).size === ids.length, 'an id twice');
for (const name of ['aria-labelledby', 'aria-describedby'])
  for (const element of document.querySelectorAll(`[${name}]`))
    for (const id of element.getAttribute(name).split(' ')) is(document.getElementById(id), `${name} of nothing: ${id}`);
const tables = [...document.querySelectorAll('table')].filter((table) => table.checkVisibility());
is(tables.length > 0, 'no table');
for (const table of tables) {
  is(table.caption?.textContent, 'a table without a caption');
  for (const head of table.tHead.rows[0].cells) is(head.scope === 'col' && head.textContent, 'a column without a heading');
  for (const row of table.tBodies[0].rows)
    is(row.cells[0].className === 'empty' || row.cells[0].scope === 'row', 'a row without a heading');
}
const drawings = [...document.querySelectorAll('svg:not([aria-hidden])')].filter((drawing) => drawing.checkVisibility());
is(drawings.length >= 3, 'hardly a drawing');
for (const drawing of drawings)
  is(drawing.getAttribute('role') === 'img' && drawing.getAttribute('aria-label')?.includes('now:'), 'a drawing without words');
is(document.querySelector('[aria-live=polite]'), 'nobody is told of changes');
return wrong;
"""

# axe-core's own rules, WCAG's A and AA and what is good practice besides: how many hold, and what does not.
AXE_CORE = pathlib.Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
AXE = """
return axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }).then(({ passes, violations }) => [
  passes.length, violations.map(({ id, help, nodes }) => [id, help, nodes.map((node) => node.html.slice(0, 120))]),
]);
"""

FIGURE = """
const figure = [...document.querySelectorAll('#figures div')].find((figure) => figure.firstChild.textContent === arguments[0]);
return figure && figure.lastChild.textContent;
"""

# The state that a machine's row shows, where it is one of those that are wanted.
ROW = """
const row = [...document.querySelectorAll('#machines tbody tr')].find((row) => row.cells[0].textContent === arguments[0]);
const text = row && row.cells[1].textContent;
return text && arguments[1].some((wanted) => text.includes(wanted)) && text;
"""

BUTTON = "return [...document.querySelectorAll('button')].find((button) => button.textContent === arguments[0] && button.checkVisibility())"
SHOWN = "return document.getElementById(arguments[0]).checkVisibility() && document.getElementById(arguments[0]).textContent.includes(arguments[1])"
UP = ["ready", "starting"]


class Console:
    """The console in a browser, and the gateway behind it."""

    def __init__(self, browser, options):
        self.browser, self.options = browser, options
        self.origin = options.url.rstrip("/")

    # --- the gateway

    def get(self, path):
        where = urllib.parse.urlsplit(self.options.url)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())

    def history(self, machine):
        return self.get(f"/api/machines/{machine}/history")["history"]

    def is_drained(self, machine=None):
        return self.get("/drain" + (f"?machine={machine}" if machine else ""))["draining"]

    # --- the page

    def open(self, page=""):
        self.browser.open(self.options.url + page)
        self.browser.until("the page hears of the gateway", "return document.getElementById('stream').textContent.startsWith('Live')")

    def go(self, page):
        self.browser.run("location.hash = arguments[0]", page)

    def figure(self, name):
        return float(self.browser.run(FIGURE, name).replace(",", ""))

    def button(self, name):
        self.browser.until(f"there is a button {name!r}", BUTTON, name)
        return next(iter(self.browser.run(BUTTON, name).values()))

    def until_row(self, machine, states):
        self.browser.until(f"{machine} is one of {states}", ROW, machine, states)

    def until_shown(self, element, text):
        self.browser.until(f"#{element} says {text!r}", SHOWN, element, text)

    def tab_to(self, name):
        """Goes with the tab key alone to the element of this name."""
        for _ in range(80):
            self.browser.press(Key.TAB)
            if self.browser.run("return document.activeElement.textContent") == name:
                style = "const style = getComputedStyle(document.activeElement); return [style.outlineStyle, parseFloat(style.outlineWidth)]"
                line, width = self.browser.run(style)
                expect(line == "solid" and width >= 2, f"where the focus is can't be seen on {name}: {line}, {width}")
                return
        raise AssertionError(f"the tab key does not lead to {name!r}")

    def picture(self, name, width, height, scheme):
        self.browser.resize(width, height)
        self.browser.colours(scheme)
        wait_for_plots(self.browser)
        self.browser.screenshot(pathlib.Path(self.options.pictures) / f"console-{name}.png")

    # --- what is checked

    def structure(self):
        wrong = self.browser.run(STRUCTURE)
        expect(wrong == [], f"{wrong}")
        named = self.browser.find_all("button, a, meter, input, select, [tabindex='0'], dialog")
        shown = [element for element in named if self.browser.run("return arguments[0].checkVisibility()", as_argument(element))]
        expect(len(shown) > 5, "hardly anything to use")
        for element in shown:
            text = self.browser.run("return arguments[0].outerHTML", as_argument(element))[:120]
            expect(self.browser.label(element).strip() != "", f"without a name: {text}")
            expect(self.browser.role(element) not in ("", "generic", "none"), f"without a role: {text}")

    def looks(self):
        """In both colours: the contrast of each text, and all that axe-core knows."""
        self.browser.run(f"if (!window.axe) {{ {AXE_CORE} }}")
        for scheme in ("light", "dark"):
            self.browser.colours(scheme)
            seen, bad = self.browser.run(CONTRASTS, CONTRAST)
            expect(seen > 40 and bad == [], f"{scheme}: of {seen} texts {bad}")
            held, bad = self.browser.run(AXE)
            expect(held > 20 and bad == [], f"{scheme}: axe-core: {held} rules hold, and these do not: {bad}")
        self.browser.colours("light")

    def narrow(self):
        self.browser.resize(NARROW, 800)
        wide = self.browser.until(
            "the page is as narrow as its screen",
            "return innerWidth === arguments[0] && [document.documentElement.scrollWidth, document.body.scrollWidth]", NARROW,
        )
        expect(max(wide) <= NARROW, f"the page is {wide} wide on a screen of {NARROW}")
        expect(self.browser.run(BUTTON, "Pause updates") is not None, "no button is left")
        self.browser.resize(1280, 900)

    def nothing_is_wrong(self):
        """No error in the browser, and no request to anybody else."""
        errors = [entry for entry in self.browser.logged("browser") if entry["level"] in ("SEVERE", "WARNING")]
        expect(errors == [], f"{errors}")
        self.asked_nobody_else()

    def asked_nobody_else(self):
        asked = []
        for entry in self.browser.logged("performance"):
            event = json.loads(entry["message"])["message"]
            # The browser has a page of its own before it is led anywhere.
            is_ours = not event["params"].get("documentURL", "").startswith("chrome:")
            if event["method"] == "Network.requestWillBeSent" and is_ours:
                asked.append(event["params"]["request"]["url"])
        expect(any("/api/" in url for url in asked), f"what it asks is not seen: {asked}")
        elsewhere = [url for url in asked if not url.startswith((self.origin + "/", "data:"))]
        expect(elsewhere == [], f"asked elsewhere: {elsewhere}")


def as_argument(element):
    return {ELEMENT: element}


def wait_for_plots(browser):
    drawn = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(document.getElementById('stream').textContent))))"
    before = browser.run(drawn)
    browser.until("it has been drawn again", drawn.replace("done(document", "done(arguments[0] !== document"), before)


def ask(what):
    print(f"ASK {what}", flush=True)


def done(what):
    print(f"ok {what}", flush=True)


def numbers_and_plots_move(console):
    console.open()
    ask("load")
    wait_for("jobs are seen", lambda: console.figure("Jobs each second") > 0, describe=console.browser.describe)
    curve = "return document.querySelector('#plots figure .curve').getAttribute('d')"
    before = console.browser.run(curve)
    console.browser.until("the plot has moved", "return (" + curve[7:] + ").split('L').length > arguments[0].split('L').length + 1", before)
    told = console.browser.run("return document.querySelector('#plots svg').getAttribute('aria-label')")
    expect(f"{console.options.world} " in told, f"the plot does not say what it shows: {told}")
    wait_for("somebody is seen to send jobs", lambda: console.get("/api/state")["callers"]["busiest"])
    state = console.get("/api/state")
    world = next(world for world in state["worlds"] if world["name"] == console.options.world)
    expect(world["jobs_per_second"] > 0 and world["outcomes"]["replied"]["total"] > 0, f"{world}")
    shown = "return document.querySelector('#callers tbody').textContent.includes(arguments[0])"
    console.browser.until("the busiest callers are shown", shown, "hardserver, unix")
    done("numbers and plots move")


def it_is_fit_to_be_read(console):
    console.structure()
    console.looks()
    console.narrow()
    done("structure, contrast, axe-core and a narrow screen")


def a_machine_is_drained_by_click_and_by_key(console):
    browser, machine = console.browser, console.options.machine
    browser.click(console.button(f"Drain {machine}"))
    browser.until("it asks first", "return document.querySelector('dialog').open")
    focused = browser.run("return document.activeElement.textContent")
    expect(focused == "Cancel", f"the focus is on {focused!r}: a key that was pressed too often would do it")
    console.looks()
    browser.press(Key.ESCAPE)
    browser.until("it is closed", "return !document.querySelector('dialog').open")
    expect(not console.is_drained(machine), "it was drained without an answer")
    browser.click(console.button(f"Drain {machine}"))
    browser.click(browser.find("#confirm-yes"))
    console.until_shown("result", f"Machine {machine} takes no new jobs")
    console.until_row(machine, ["drained"])
    expect(console.is_drained(machine), "the gateway knows nothing of it")
    browser.until("who listens is told", "return document.getElementById('announce').textContent.includes(arguments[0])", f"machine {machine} is drained")
    console.looks()
    # And back, without a mouse.
    browser.run("document.activeElement.blur(); scrollTo(0, 0)")
    console.tab_to(f"Resume {machine}")
    browser.press(Key.ENTER)
    browser.until("it asks first", "return document.querySelector('dialog').open")
    browser.press(Key.TAB, Key.SPACE)
    console.until_shown("result", f"Machine {machine} takes jobs")
    console.until_row(machine, UP)
    expect(not console.is_drained(machine), "the gateway knows nothing of it")
    done("a machine is drained and resumed")


def the_gateway_is_drained(console):
    browser = console.browser
    ask("rest")
    wait_for("no job is in hand", lambda: console.get("/drain")["jobs"] == 0)
    browser.click(console.button("Drain the gateway"))
    browser.click(browser.find("#confirm-yes"))
    console.until_shown("ready", "drained")
    console.until_shown("trouble", "takes no new jobs")
    expect(console.is_drained(), "the gateway knows nothing of it")
    browser.click(console.button("Resume the gateway"))
    browser.click(browser.find("#confirm-yes"))
    console.until_shown("ready", "ready")
    expect(not console.is_drained(), "the gateway knows nothing of it")
    done("the gateway is drained and resumed")


def a_machines_page(console):
    browser, machine = console.browser, console.options.machine
    browser.click(browser.find(f"#machines a[href$='/{machine}']"))
    browser.until("its page is there", "return document.getElementById('machine-name').checkVisibility() && document.title.startsWith(arguments[0])", machine)
    focused = browser.run("return document.activeElement.id")
    expect(focused == "machine-name", f"whoever can't see the page is left at {focused!r}")
    rows = "return [...document.querySelectorAll('#history tbody tr')].map((row) => row.cells[1].textContent)"
    has = "return (() => {" + rows + "})().some((what) => what.includes(arguments[0]))"
    browser.until("that it was drained is there", has, "drained")
    browser.until("that it was resumed is there", has, "resumed")
    # Before each connect in vain is an entry: only the last hundred are kept.
    happened = [happening["what"] for happening in console.history(machine)]
    expect([what for what in happened if what in ("drained", "resumed")] == ["drained", "resumed"], f"{happened}")
    ask("cut")
    browser.until("that its tunnel was lost is there", has, "tunnel lost")
    lost = next((happening for happening in console.history(machine) if happening["what"] == "tunnel_lost"), None)
    expect(lost and lost["text"] and lost["shard"] is not None, f"{lost}")
    console.until_shown("machine-state", "down")
    console.until_shown("machine-trouble", "Last at")
    ask("mend")
    # The latest is the first. Earlier ones may be there no more.
    latest = "return (() => {" + rows + "})().find((what) => what.includes('tunnel up') || what.includes('tunnel lost'))"
    browser.until("that its tunnel is up again is there", latest + "?.includes('tunnel up')")
    browser.until("it is up", "return ['ready', 'starting'].some((word) => document.getElementById('machine-state').textContent.includes(word))")
    browser.until("nothing is wrong with it", "return !document.getElementById('machine-trouble').checkVisibility()")
    console.structure()
    console.looks()
    console.narrow()
    console.go("#/machine/nobody")
    browser.until("it says that there is none", "return document.getElementById('missing').checkVisibility()")
    console.go("#/")
    browser.until("the overview is there again", "return document.getElementById('overview').checkVisibility()")
    done("a machine's page")


def it_can_be_paused(console):
    browser = console.browser
    browser.click(console.button("Pause updates"))
    console.until_shown("stream", "Paused at")
    curves = "[...document.querySelectorAll('#overview .curve')].map((curve) => curve.getAttribute('d'))"
    shown = f"return [document.getElementById('overview').textContent, {curves}]"
    before = browser.run(shown)
    expect(any("L" in curve for curve in before[1]), f"no curve is drawn: {before[1]}")
    # What is drawn anew has no mark any more.
    browser.run("for (const line of document.querySelectorAll('#overview .grid')) line.setAttribute('data-marked', '')")
    heard = console.get("/api/state")["time"]
    wait_for("two more states are out", lambda: console.get("/api/state")["time"] > heard + 2)
    expect(browser.run(shown) == before, "it moves")
    drawn = browser.run("return document.querySelectorAll('#overview .grid:not([data-marked])').length")
    expect(drawn == 0, f"{drawn} lines were drawn anew")
    browser.click(console.button("Pause updates"))
    console.until_shown("stream", "Live")
    done("it can be paused")


def the_gateway_goes_away_and_comes_back(console):
    browser = console.browser
    console.nothing_is_wrong()
    ask("kill")
    console.until_shown("stream", "No news since")
    browser.until("who listens is told", "return document.getElementById('announce').textContent.includes('No news')")
    console.looks()
    ask("start")
    console.until_shown("stream", "Live")
    console.until_row(console.options.machine, UP)
    console.until_row(console.options.other, UP)
    # A browser logs each try in vain.
    in_vain = [entry for entry in browser.logged("browser") if "net::ERR_" not in entry["message"]]
    expect(in_vain == [], f"{in_vain}")
    done("the gateway goes away and comes back")


def pictures(console):
    machine = console.options.machine
    for name, page, width, height, scheme in [
        ("light", "#/", 1280, 1030, "light"), ("dark", "#/", 1280, 1030, "dark"), ("narrow", "#/", NARROW, 900, "light"),
        ("machine", f"#/machine/{machine}", 1280, 1120, "light"),
    ]:
        console.go(page)
        console.picture(name, width, height, scheme)
    console.go("#/")
    console.browser.resize(1280, 900)
    console.browser.colours("light")


def nothing_can_be_changed(console):
    console.open()
    console.until_shown("no-changes", "listen.management")
    rows = console.browser.until("machines are shown", "return document.querySelectorAll('#machines tbody th').length")
    expect(rows > 0, "no machine")
    buttons = "return [...document.querySelectorAll('button')].filter((button) => button.checkVisibility()).map((button) => button.textContent)"
    expect(console.browser.run(buttons) == ["Pause updates"], f"{console.browser.run(buttons)}")
    console.structure()
    console.looks()
    console.nothing_is_wrong()
    done("nothing can be changed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--world")
    parser.add_argument("--machine")
    parser.add_argument("--other")
    parser.add_argument("--pictures")
    parser.add_argument("--read-only", action="store_true")
    options = parser.parse_args()
    with Browser() as browser:
        console = Console(browser, options)
        if options.read_only:
            nothing_can_be_changed(console)
            return
        numbers_and_plots_move(console)
        it_is_fit_to_be_read(console)
        a_machine_is_drained_by_click_and_by_key(console)
        if options.pictures:
            pictures(console)
        the_gateway_is_drained(console)
        a_machines_page(console)
        it_can_be_paused(console)
        the_gateway_goes_away_and_comes_back(console)


if __name__ == "__main__":
    main()
