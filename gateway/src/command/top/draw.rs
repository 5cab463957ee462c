//! Draws what the state machine knows: the only part of `top` that knows of rows, columns and colours. At every size: what has no
//! room is left out, the least important first.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;

use super::fit::{fit, width, wrapped};
use super::model::{Model, Page};
use super::seen::{Plot, Series};
use super::tables::{Row, Table, Tone, about, gateway_mark, mark, percentiles, trouble, tunnels, work};
use super::text::{NONE, moment, plot, rate, seconds};

/// How wide the number before a plot is.
const FIGURE: usize = 18;

/// Below how many rows only the pane that has the keys is shown.
const ROWS_FOR_ALL: u16 = 8;

const HELP: [&str; 14] = [
    "Up, Down, k, j    choose a row",
    "PageUp, PageDown  ten rows further",
    "Home, End, g, G   the first row, the last",
    "Tab, Shift-Tab    the next pane, the one before",
    "Enter, m          the chosen machine's page: its counts and history",
    "d                 drain the chosen machine: it gets no new jobs",
    "r                 resume it",
    "D                 drain the whole gateway",
    "R                 resume it",
    "y, n              answer a question: yes, no",
    "?                 this help",
    "Escape            back; leave",
    "q, Ctrl-C         leave",
    "                  Any key closes this.",
];

/// Draws, with colours or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Painter {
    pub(super) has_colours: bool,
}

/// The rows that are left of an area, from the top.
struct Rows(Rect);

impl Rows {
    /// The next row, if there is one.
    fn next(&mut self) -> Option<Rect> {
        self.take(1)
    }

    /// The next rows; all that are left where there are fewer, `None` where there are none.
    fn take(&mut self, rows: u16) -> Option<Rect> {
        let height = rows.min(self.0.height);
        let taken = Rect { height, ..self.0 };
        self.0 = Rect { y: self.0.y.saturating_add(height), height: self.0.height - height, ..self.0 };
        (height > 0).then_some(taken)
    }

    /// The last row, if there is one.
    fn last(&mut self) -> Option<Rect> {
        self.0.height = self.0.height.checked_sub(1)?;
        Some(Rect { y: self.0.y + self.0.height, height: 1, ..self.0 })
    }
}

impl Painter {
    /// Everything.
    pub(super) fn draw(self, frame: &mut Frame<'_>, model: &Model) {
        let area = frame.area();
        if area.width == 0 || area.height == 0 {
            return;
        }
        if model.shows_help {
            return help(frame, area);
        }
        let mut rows = Rows(area);
        // A question is shown wherever anything is, and a long text in more rows than one.
        let (text, style) = self.status(model);
        let lines = wrapped(&text, usize::from(area.width), usize::from(area.height / 4).clamp(1, 3));
        for line in lines.into_iter().rev() {
            put(frame, rows.last(), Line::styled(line, style));
        }
        let keys = (rows.0.height >= 5).then(|| rows.last()).flatten();
        put(frame, keys, Line::styled(keys_of(model), self.faint()));
        self.head(frame, &mut rows, model);
        match (&model.page, &model.tables) {
            (Some(page), _) => self.page(frame, rows, model, page),
            (None, Some(tables)) => self.panes(frame, rows, model, tables),
            (None, None) => put(frame, rows.next(), Line::raw("waiting for the gateway's first word")),
        }
    }

    fn colour(self, tone: Tone) -> Style {
        let style = Style::new();
        if !self.has_colours {
            return style;
        }
        match tone {
            Tone::Good => style.fg(Color::Green),
            Tone::Uneasy => style.fg(Color::Yellow),
            Tone::Held => style.fg(Color::Cyan),
            Tone::Bad => style.fg(Color::Red),
        }
    }

    fn faint(self) -> Style {
        if self.has_colours { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    /// The line at the bottom: a question, what came of it, that nothing is heard, or what is wrong with the chosen row.
    fn status(self, model: &Model) -> (String, Style) {
        if let Some(change) = &model.asks {
            return (format!("{} y/n", change.question()), Style::new().add_modifier(Modifier::BOLD));
        }
        if let Some(said) = &model.said {
            let text = if said.is_bad { format!("! {}", said.text) } else { said.text.clone() };
            return (text, if said.is_bad { self.colour(Tone::Bad) } else { Style::new() });
        }
        if let Some(silence) = model.silence() {
            return (format!("! {silence}"), self.colour(Tone::Bad));
        }
        let chosen = model.chosen(model.pane).filter(|_| model.page.is_none());
        let row = chosen.and_then(|row| model.tables.as_ref()?[model.pane].rows.get(row));
        match row.and_then(|row| Some((&row.cells[0], row.why.as_ref()?))) {
            Some((name, why)) => (format!("{name}: {why}"), self.colour(Tone::Uneasy)),
            None => (String::new(), Style::new()),
        }
    }

    /// The gateway as a whole.
    fn head(self, frame: &mut Frame<'_>, rows: &mut Rows, model: &Model) {
        let Some(seen) = &model.seen else {
            return put(frame, rows.next(), Line::raw(format!("seeway  {}", model.place)));
        };
        let state = &seen.state;
        let (shape, tone) = gateway_mark(state);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut line = vec![
            Span::styled(format!("seeway {}  ", state.version), bold),
            Span::styled(shape, self.colour(tone).add_modifier(Modifier::BOLD)),
            Span::raw(format!("  {}  {}", model.place, about(state))),
        ];
        if model.silence().is_some() {
            line.insert(2, Span::styled("  OLD", bold));
        }
        put(frame, rows.next(), Line::from(line));
        if rows.0.height < 8 {
            return;
        }
        put(frame, rows.next(), Line::raw(work(state)));
        let figures = (state.jobs.per_second, percentiles(state.jobs.seconds));
        self.plots(frame, rows, &model.plots.all, figures);
    }

    /// Jobs per second and the 99th percentile, as they were and as they are.
    fn plots(self, frame: &mut Frame<'_>, rows: &mut Rows, plot: &Plot, (per_second, times): (f64, [String; 3])) {
        let [p50, p99, p999] = times;
        self.sparkline(
            frame,
            rows.next(),
            &format!("jobs/s {}", rate(per_second)),
            &plot.rates,
            &most(&plot.rates, rate),
        );
        let right = format!("p50 {p50}  p99.9 {p999}  {}", most(&plot.p99, seconds));
        self.sparkline(frame, rows.next(), &format!("p99    {p99}"), &plot.p99, &right);
    }

    fn sparkline(self, frame: &mut Frame<'_>, area: Option<Rect>, left: &str, series: &Series, right: &str) {
        let Some(area) = area else { return };
        let values: Vec<_> = series.iter().copied().collect();
        let room = usize::from(area.width).saturating_sub(FIGURE + width(right) + 1);
        let bars = Span::styled(plot(&values, room), self.colour(Tone::Good));
        put(
            frame,
            Some(area),
            Line::from(vec![Span::raw(fit(left, FIGURE, false)), bars, Span::raw(format!(" {right}"))]),
        );
    }

    /// The tables, each in as many rows as it needs and may have.
    fn panes(self, frame: &mut Frame<'_>, mut rows: Rows, model: &Model, tables: &[Table; 4]) {
        if rows.0.height < ROWS_FOR_ALL {
            let all = rows.0.height;
            return self.table(frame, rows.take(all), model, tables, model.pane);
        }
        for (pane, height) in shares(rows.0.height, tables, model.pane).into_iter().enumerate() {
            self.table(frame, rows.take(height), model, tables, pane);
        }
    }

    fn table(self, frame: &mut Frame<'_>, area: Option<Rect>, model: &Model, tables: &[Table; 4], pane: usize) {
        let Some(area) = area else { return };
        let mut rows = Rows(area);
        let (table, chosen, has_keys) = (&tables[pane], model.chosen(pane), model.pane == pane);
        let widths = widths(table, usize::from(area.width).saturating_sub(2));
        let shown = usize::from(area.height).saturating_sub(1);
        // The chosen row is on the screen.
        let first = chosen.map_or(0, |row| (row + 1).saturating_sub(shown));
        let more = table.rows.len().saturating_sub(shown);
        let heads = table.columns.iter().map(|(head, _)| *head);
        let head = cells(table, heads, &widths).join("  ");
        let head = format!("{}{head}", if has_keys { "> " } else { "  " });
        // How many more there are is said even where not all columns have room.
        let more = if more > 0 && shown > 0 { format!("  (+{more})") } else { String::new() };
        let room = usize::from(area.width).saturating_sub(more.chars().count());
        let head = format!("{}{more}", fit(&head, room, false).trim_end());
        let style = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
        put(frame, rows.next(), Line::styled(fit(&head, usize::from(area.width), false), style));
        for (number, row) in table.rows.iter().enumerate().skip(first).take(shown) {
            let is_chosen = chosen == Some(number);
            let line = self.row(table, row, &widths, is_chosen);
            put(frame, rows.next(), if is_chosen && has_keys { line.patch_style(Modifier::REVERSED) } else { line });
        }
    }

    fn row(self, table: &Table, row: &Row, widths: &[usize], is_chosen: bool) -> Line<'static> {
        let mut line = vec![Span::raw(if is_chosen { "› " } else { "  " })];
        for (number, cell) in cells(table, row.cells.iter().map(String::as_str), widths).into_iter().enumerate() {
            let tone = row.tone.filter(|_| number == 1);
            line.push(Span::styled(cell, tone.map(|tone| self.colour(tone)).unwrap_or_default()));
            line.push(Span::raw("  "));
        }
        Line::from(line)
    }

    /// One machine.
    fn page(self, frame: &mut Frame<'_>, mut rows: Rows, model: &Model, page: &Page) {
        let bold = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
        let Some(machine) = model.machine(page) else {
            put(frame, rows.next(), Line::styled(format!("Machine {}", page.name), bold));
            return put(frame, rows.next(), Line::raw("the gateway has it no more; Escape goes back"));
        };
        let (shape, tone) = mark(&machine.state);
        let line = vec![
            Span::styled(format!("Machine {}", machine.name), bold),
            Span::styled(format!("  {shape}"), self.colour(tone)),
            Span::raw(format!("  {}  worlds {}", machine.address, machine.worlds.join(", "))),
        ];
        put(frame, rows.next(), Line::from(line));
        if let Some(trouble) = trouble(machine) {
            put(frame, rows.next(), Line::styled(trouble, self.colour(Tone::Bad)));
        }
        let keepalive = machine.keepalive_seconds.map_or_else(|| NONE.to_owned(), |of| seconds(of.p50));
        let now = format!(
            "tunnels {}  channels {}  in flight {} of {}  keepalive {keepalive}",
            tunnels(machine),
            machine.channels,
            machine.in_flight,
            machine.max_in_flight
        );
        put(frame, rows.next(), Line::raw(now));
        let counts = format!(
            "made {}  failed {}  refused {}  forbidden {}  rekeys {}  ejections {}  late replies {}",
            machine.tunnels_made,
            machine.connects_failed,
            machine.tunnels_refused,
            machine.channels_prohibited,
            machine.rekeys,
            machine.ejections,
            machine.late_replies
        );
        put(frame, rows.next(), Line::raw(counts));
        let figures = (machine.jobs_per_second, percentiles(machine.machine_seconds));
        let nothing = Plot::default();
        let plot = model.plots.machines.get(&page.name).unwrap_or(&nothing);
        self.plots(frame, &mut rows, plot, figures);
        put(frame, rows.next(), Line::styled("History, the newest first", bold));
        match &page.history {
            None => put(frame, rows.next(), Line::raw("asking for it")),
            Some(Err(why)) => put(frame, rows.next(), Line::styled(format!("! {why}"), self.colour(Tone::Bad))),
            Some(Ok(history)) if history.is_empty() => put(frame, rows.next(), Line::raw("nothing has happened to it")),
            Some(Ok(history)) => {
                for happening in history.iter().skip(page.scrolled) {
                    let Some(area) = rows.next() else { return };
                    let shard = happening.shard.map(|shard| format!("shard {shard}")).unwrap_or_default();
                    let what = happening.what.replace('_', " ");
                    let text = format!("{}  {shard:<8} {what:<17}  {}", moment(happening.time), happening.text);
                    put(frame, Some(area), Line::raw(text));
                }
            }
        }
    }
}

/// The largest value of a plot, as its scale.
fn most(series: &Series, text: impl Fn(f64) -> String) -> String {
    let most = series.iter().flatten().copied().reduce(f64::max);
    most.map_or_else(String::new, |most| format!("most {}", text(most)))
}

fn keys_of(model: &Model) -> &'static str {
    match (&model.asks, &model.page) {
        (Some(_), _) => "y yes  n no",
        (None, Some(_)) => "Up/Down history  d drain  r resume  Escape back  ? help  q leave",
        (None, None) => "Up/Down choose  Tab pane  Enter machine  d drain  r resume  ? help  q leave",
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    frame.render_widget(Clear, area);
    let mut rows = Rows(area);
    for line in HELP {
        put(frame, rows.next(), Line::raw(line));
    }
}

fn put(frame: &mut Frame<'_>, area: Option<Rect>, line: Line<'_>) {
    if let Some(area) = area {
        frame.render_widget(line, area);
    }
}

/// How many rows each pane gets, its head included: first two for each, then what the one with the keys needs, then the others.
fn shares(rows: u16, tables: &[Table; 4], pane: usize) -> [u16; 4] {
    let needs = [0, 1, 2, 3].map(|pane: usize| u16::try_from(tables[pane].rows.len() + 1).unwrap_or(u16::MAX));
    let mut shares = needs.map(|need| need.min(2));
    let mut left = rows.saturating_sub(shares.iter().sum());
    // Whoever has the keys may take half of it at first, so that the others show more than one row.
    let rounds = [(pane, left / 2)].into_iter().chain([1, 0, 2, 3].map(|pane| (pane, 4))).chain([(pane, u16::MAX)]);
    for (pane, most) in rounds.chain([1, 0, 2, 3].map(|pane| (pane, u16::MAX))) {
        let more = (needs[pane] - shares[pane]).min(left).min(most);
        shares[pane] += more;
        left -= more;
    }
    shares
}

/// The widths of as many columns as there is room for; at least one.
fn widths(table: &Table, room: usize) -> Vec<usize> {
    let mut widths = Vec::new();
    let mut left = room;
    for (number, (head, _)) in table.columns.iter().enumerate() {
        let cells = table.rows.iter().filter_map(|row| row.cells.get(number)).map(|cell| width(cell));
        // One long name is not to push everything else off the screen.
        let wanted = cells.chain([width(head)]).max().unwrap_or(0).min(room / 3).max(width(head)).min(room);
        let gap = if number == 0 { 0 } else { 2 };
        if number > 0 && wanted + gap > left {
            break;
        }
        left = left.saturating_sub(wanted + gap);
        widths.push(wanted);
    }
    widths
}

/// The cells that are shown, each as wide as its column.
fn cells<'a>(table: &Table, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> Vec<String> {
    let columns = table.columns.iter().zip(widths);
    columns.zip(cells).map(|(((_, is_number), width), cell)| fit(cell, *width, *is_number)).collect()
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
