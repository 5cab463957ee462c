//! The report: Markdown with plots, and everything that was measured as JSON.

use std::{
    fmt::{self, Write as _},
    fs,
    path::Path,
};

use anyhow::Context;

use super::{
    Bar, Comparison, Measurement, Part, Peer, Sample, Sense, Socket, Spread,
    plot::{self, Line, Stack},
    ratios,
};
use crate::report::{SHARES, readable};

/// What the figures mean, for whoever wants to trust them or to repeat them.
const METHOD: &str = "\
## How it was measured

`cargo run --release -p seeway-bench -- compare` starts all of it: OpenSSH's `sshd` with a configuration and keys of its own, the
emulated machine with the application `echo` behind it, the gateway with one world on that machine and else its defaults, and the peers:

- (a) plain TCP to the machine's port: the floor, without SSH.
- (b) `ssh -N -L` as people run it.
- (c) `ssh -L` with a session open, so that both sides set TCP_NODELAY, and with the fastest of OpenSSH's ciphers: the best that OpenSSH can do.
- (d) the same tunnel, with a thread for each connection that waits for each answer.
- (e) a forwarder as one writes it with russh: a channel for each connection.
- (f) the gateway's legacy listener. Callers reach it, and (b) to (e), by Unix sockets, with which all of them are faster than with TCP
  (`--socket tcp` compares these); the machine itself has TCP only.
- (g) the gateway's gRPC, (h) a bare tonic echo server with the same schema and no SSH, on the runtime with which it is the faster.
- (i) a server on a socket like the gateway's that answers each job by itself, on one thread: what such callers get at most, whatever
  is behind the socket. What it takes for a job is what reading it and writing its reply take.

Every way on the wire gets the same load generator: one thread with all connections. It shares the cores with what it measures.
Latencies run from before a job is written to after its reply is decoded; each reply is compared with its job.

- Row 10: the large jobs have 262 100 bytes, the most that a gateway takes by default; four of them are in flight.
- Row 11: the machine takes four jobs at once, so that the gateway's queue decides who is served. A share is what all 51 callers get
  together, divided by 51; the figure is that of the one of the fifty who gets the least.
- Row 12: each idle connection is on the Unix socket, has opened its world and has had one job answered. Memory is the process' resident set. The busy ones
  are 64 × 1.
- Row 13: an open loop. The rate is a fifth of what 1 000 callers × 1 reach, and latency runs from when a job should have been sent.
- Row 14: counted under callgrind, from a legacy caller's bytes to its answer's; the worse of 1 × 64 and 256 × 1. What the
  scenario's own caller and machine take is counted separately and taken off.
- Row 15: what the kernel's scheduler counts for the threads of the process.
";

/// The page's name.
pub const PAGE: &str = "README.md";
const THROUGHPUT: &str = "throughput.svg";
const CPU: &str = "cpu.svg";
const RESULTS: &str = "results.json";

/// The loads whose latencies are plotted.
const LATENCIES: [(usize, usize); 3] = [(1, 1), (1, 64), (256, 1)];

impl Comparison {
    /// Whether every bar is passed.
    pub fn passes(&self) -> bool {
        self.bars.iter().all(|bar| bar.pass)
    }

    /// Writes the report into a folder, which is made where it is missing.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("{} can not be made", folder.display()))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("{} can not be written", path.display()))
        };
        write(PAGE, &self.page())?;
        write(RESULTS, &serde_json::to_string(self)?)?;
        write(THROUGHPUT, &self.throughput())?;
        write(CPU, &self.cpu())?;
        for (callers, in_flight) in LATENCIES {
            write(&latency_plot(callers, in_flight), &self.latencies(callers, in_flight))?;
        }
        Ok(())
    }

    fn page(&self) -> String {
        let mut page = String::new();
        self.write_page(&mut page).expect("writing to a string can't fail");
        page
    }

    fn write_page(&self, page: &mut String) -> fmt::Result {
        let host = &self.machine;
        let passed = self.bars.iter().filter(|bar| bar.pass).count();
        writeln!(page, "# The gateway against other ways to the same machine\n")?;
        writeln!(
            page,
            "Made by `seeway-bench compare` on {} UTC, in {:.0} s; {passed} of {} requirements are met. {} rounds, each thing measured \
             for {} s in each of them after {} s of warm-up; jobs of 256 bytes unless said otherwise, everything on loopback.\n",
            host.date,
            self.took_seconds,
            self.bars.len(),
            self.plan.rounds,
            self.plan.time.as_secs_f64(),
            self.plan.warm_up.as_secs_f64(),
        )?;
        writeln!(page, "| | |\n| --- | --- |")?;
        writeln!(page, "| processor | {}, {} cores |", host.processor, host.cores)?;
        writeln!(page, "| memory | {} MiB |", host.memory_mib)?;
        writeln!(page, "| system | {} |", host.system)?;
        writeln!(page, "| SSH | {} |", host.openssh)?;
        writeln!(page, "| gateway | {} |", host.seeway)?;
        writeln!(page, "| callers' sockets | {} |", if self.socket == Socket::Unix { "Unix" } else { "TCP" })?;
        if let Some(cipher) = self.best_cipher {
            writeln!(page, "| the fastest cipher, of (c) | {cipher} |")?;
        }
        for (peer, threads) in &self.tonic_threads {
            writeln!(page, "| threads of {peer}, the fastest | {threads} |")?;
        }
        let [before, after] = host.load_average;
        writeln!(page, "| load average before and after | {before:.2}, {after:.2} |\n")?;

        writeln!(page, "## What had to be reached\n")?;
        writeln!(
            page,
            "A ratio is the median of the rounds' ratios: what is compared is measured in turn within each round. Behind it stand the \
             lowest and the highest round.\n"
        )?;
        writeln!(page, "| row | what | measured | required | |\n| --- | --- | --- | --- | --- |")?;
        for bar in &self.bars {
            writeln!(page, "{}", line_of(bar))?;
        }

        self.write_ceilings(page)?;

        writeln!(page, "\n## What was measured\n")?;
        writeln!(page, "Medians of the rounds, and how far they were apart.\n")?;
        writeln!(page, "![jobs per second against callers]({THROUGHPUT})\n")?;
        for (callers, in_flight) in LATENCIES {
            writeln!(page, "![latencies, {callers} × {in_flight}]({})\n", latency_plot(callers, in_flight))?;
        }
        writeln!(page, "![processor time for each job]({CPU})\n")?;
        writeln!(
            page,
            "| way | callers × in flight | jobs/s | p50 | p99 | p99.9 | CPU for each job: gateway or tunnel, sshd, machine, load generator |"
        )?;
        writeln!(page, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for measurement in &self.measurements {
            writeln!(page, "{}", measurement.line())?;
        }
        writeln!(page, "\nAll of it, by round: [{RESULTS}]({RESULTS}).\n")?;
        page.write_str(METHOD)
    }

    /// What a server reaches that only answers, on the same sockets, against (c): no gateway gets further.
    fn write_ceilings(&self, page: &mut String) -> fmt::Result {
        let lines: Vec<String> = [32, 64, 256].into_iter().filter_map(|callers| self.ceiling(callers)).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let (bare, best) = (Peer::BareEcho.name(), Peer::BestTunnel.name());
        writeln!(
            page,
            "\nTo read a job from its caller and to write it its reply takes time in the kernel, whatever is done between. {bare} does \
             nothing else; beside {best} it reaches\n"
        )?;
        writeln!(page, "| callers × in flight | jobs/s | CPU of its process for each job |\n| --- | --- | --- |")?;
        lines.into_iter().try_for_each(|line| writeln!(page, "{line}"))
    }

    fn ceiling(&self, callers: usize) -> Option<String> {
        let [bare, best] = [Peer::BareEcho, Peer::BestTunnel].map(|peer| self.of_peer(peer, callers, 1));
        let (bare, best) = (bare?, best?);
        let ratio = |figure: fn(&Sample) -> Option<f64>| {
            let of = |measurement: &Measurement| measurement.rounds.iter().filter_map(figure).collect::<Vec<_>>();
            let Spread { median, low, high } = ratios(&of(bare), &of(best))?;
            Some(format!("{median:.2} × ({low:.2} to {high:.2})"))
        };
        let rate = ratio(|sample| Some(sample.report.jobs_per_second))?;
        let cpu = ratio(|sample| sample.cpu_us.get(&Part::Front).copied())?;
        Some(format!("| {callers} × 1 | {rate} | {cpu} |"))
    }

    fn of_peer(&self, peer: Peer, callers: usize, in_flight: usize) -> Option<&Measurement> {
        let is_it = |measurement: &&Measurement| {
            measurement.peer == Some(peer) && (measurement.callers, measurement.in_flight) == (callers, in_flight)
        };
        self.measurements.iter().find(is_it)
    }

    fn throughput(&self) -> String {
        let callers = [1, 32, 64, 256];
        let line = |peer: Peer| Line {
            name: peer.name().to_owned(),
            points: callers.iter().map(|callers| self.of_peer(peer, *callers, 1)?.jobs_per_second).collect(),
        };
        let lines: Vec<Line> = Peer::ON_THE_WIRE.into_iter().map(line).collect();
        let places = callers.map(|callers| callers.to_string());
        plot::lines("Jobs per second, one in flight for each caller", "callers", "jobs/s", &places, &lines)
    }

    fn latencies(&self, callers: usize, in_flight: usize) -> String {
        let line = |peer: Peer| {
            let measurement = self.of_peer(peer, callers, in_flight);
            let point =
                |index: usize| Spread::of(measurement?.rounds.iter().map(|sample| sample.report.percentiles[index].1));
            Line { name: peer.name().to_owned(), points: (0..SHARES.len()).map(point).collect() }
        };
        let lines: Vec<Line> = Peer::ON_THE_WIRE.into_iter().map(line).collect();
        let places = SHARES.map(|share| format!("{}", (share * 1e6).round() / 1e4));
        let title = format!("Latencies, {callers} × {in_flight}");
        plot::lines(&title, "percentile", "µs", &places, &lines)
    }

    fn cpu(&self) -> String {
        let stack = |peer: Peer| {
            let cpu = &self.of_peer(peer, 256, 1)?.cpu_us;
            let parts = Part::ALL.iter().map(|part| cpu.get(part).map_or(0.0, |spread| spread.median)).collect();
            Some(Stack { name: peer.name().to_owned(), parts })
        };
        let stacks: Vec<Stack> = Peer::ON_THE_WIRE.into_iter().filter_map(stack).collect();
        plot::stacks("Processor time for each job, 256 × 1", "µs", &Part::ALL.map(Part::name), &stacks)
    }
}

fn latency_plot(callers: usize, in_flight: usize) -> String {
    format!("latency-{callers}x{in_flight}.svg")
}

fn line_of(bar: &Bar) -> String {
    let figure = |figure: f64| match bar.unit {
        "×" if figure < 0.1 => format!("{figure:.4}"),
        "×" => format!("{figure:.2}"),
        _ if figure < 10.0 => format!("{figure:.3}"),
        _ => format!("{figure:.0}"),
    };
    let measured = match (bar.measured, bar.range) {
        (Some(measured), Some([low, high])) => {
            format!("{} {} ({} to {})", figure(measured), bar.unit, figure(low), figure(high))
        }
        _ => "not measured".to_owned(),
    };
    let sense = match bar.sense {
        Sense::AtLeast => "at least",
        Sense::AtMost => "at most",
    };
    let verdict = if bar.pass { "met" } else { "**missed**" };
    format!("| {} | {} | {measured} | {sense} {} {} | {verdict} |", bar.row, bar.name, figure(bar.required), bar.unit)
}

impl Measurement {
    fn line(&self) -> String {
        let rate = |spread: &Spread| {
            let percent = (spread.high - spread.low) / 2.0 / spread.median.max(f64::EPSILON) * 100.0;
            format!("{} ± {percent:.0} %", grouped(spread.median))
        };
        let time = |spread: &Spread| readable(spread.median);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let cpu: Vec<String> = Part::ALL
            .iter()
            .map(|part| or_dash(self.cpu_us.get(part).map(|spread| format!("{:.1}", spread.median))))
            .collect();
        let cpu = if self.cpu_us.is_empty() { "–".to_owned() } else { format!("{} µs", cpu.join(", ")) };
        let load = match self.rate {
            None => format!("{} × {}", self.callers, self.in_flight),
            Some(rate) => format!("{}, {} jobs/s", self.callers, grouped(rate)),
        };
        format!(
            "| {} | {load} | {} | {} | {} | {} | {cpu} |",
            self.name,
            or_dash(self.jobs_per_second.as_ref().map(rate)),
            or_dash(self.p50_us.as_ref().map(time)),
            or_dash(self.p99_us.as_ref().map(time)),
            or_dash(self.p99_9_us.as_ref().map(time)),
        )
    }
}

/// A figure to three digits, its thousands apart.
fn grouped(figure: f64) -> String {
    let digits = figure.abs().max(1.0).log10().floor();
    let unit = 10f64.powf((digits - 2.0).max(0.0));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive and far below 2^52"
    )]
    let mut rest = ((figure / unit).round() * unit).round() as u64;
    let mut groups = Vec::new();
    while rest >= 1000 {
        groups.push(format!("{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.push(rest.to_string());
    groups.reverse();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{
        Load, Report, Target, Until, Way,
        compare::{Host, Plan, Sample, Socket},
        load::{Clock, Tally},
    };

    fn sample(latency_ms: u64) -> Sample {
        let mut tally = Tally::new(Clock::start(Duration::ZERO, Some(Duration::from_secs(1))), 1);
        for job in 0..100 {
            tally.answered(0, job * 1_000, job * 1_000 + latency_ms * 1_000_000);
        }
        let mut load = Load::new(Way::Wire(Target::Tcp("127.0.0.1:1".to_owned())), None);
        load.until = Until::Elapsed(Duration::from_secs(1));
        let cpu_us = Part::ALL.iter().map(|part| (*part, 2.5)).collect();
        Sample { report: Report::new(&load, tally.seen()), cpu_us }
    }

    fn comparison() -> Comparison {
        let host = Host::look(Path::new("/nonexistent"));
        let plan = Plan { rounds: 3, warm_up: Duration::from_millis(100), time: Duration::from_secs(1) };
        let rounds = vec![sample(1), sample(2), sample(3)];
        let measurement = Measurement::new("a way", Some(Peer::Legacy), rounds).expect("three rounds");
        Comparison {
            machine: host,
            plan,
            socket: Socket::Unix,
            took_seconds: 3.0,
            best_cipher: Some("aes"),
            tonic_threads: BTreeMap::new(),
            measurements: vec![measurement],
            bars: vec![
                Bar::ratio(1, "fast", Spread::of([3.0]), Sense::AtLeast, 2.5),
                Bar::ratio(2, "slow", Spread::of([2.0]), Sense::AtLeast, 2.5),
            ],
        }
    }

    #[test]
    fn the_json_has_the_promised_shape() {
        let json = serde_json::to_value(comparison()).expect("it can be written");
        assert!(json["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0));
        let bars = json["bars"].as_array().expect("bars");
        assert_eq!((bars[0]["name"].as_str(), bars[0]["pass"].as_bool()), (Some("fast"), Some(true)));
        assert_eq!((bars[1]["measured"].as_f64(), bars[1]["required"].as_f64()), (Some(2.0), Some(2.5)));
        let measurement = &json["measurements"][0];
        assert_eq!(measurement["name"], "a way");
        assert_eq!(measurement["rounds"].as_array().map(Vec::len), Some(3));
        let p50 = measurement["p50_us"]["median"].as_f64().expect("a median");
        assert!((1_990.0..=2_010.0).contains(&p50), "{p50}");
        assert!(!comparison().passes());
    }

    #[test]
    fn the_report_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("new");
        comparison().write(&place).expect("it is written");
        let page = fs::read_to_string(place.join(PAGE)).expect("the page");
        assert!(page.contains("| 1 | fast | 3.00 × (3.00 to 3.00) | at least 2.50 × | met |"), "{page}");
        assert!(page.contains("| 2 | slow | 2.00 × (2.00 to 2.00) | at least 2.50 × | **missed** |"), "{page}");
        assert!(page.contains("| a way | 1 × 1 | 100 ± 0 % | 2.00 ms |"), "{page}");
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(place.join(link).is_file(), "the page links to {link}, which is not there");
        }
    }

    #[test]
    fn the_ceilings_are_ratios_of_the_rounds() {
        let of_peer = |peer: Peer, latencies: [u64; 3], cpu_us: f64| {
            let rounds = latencies.map(|latency_ms| {
                let mut sample = sample(latency_ms);
                sample.report.callers = 64;
                sample.report.in_flight = 1;
                sample.report.jobs_per_second = 1000.0 / f64::from(u32::try_from(latency_ms).expect("it is small"));
                sample.cpu_us.insert(Part::Front, cpu_us);
                sample
            });
            Measurement::new(peer.name(), Some(peer), rounds.to_vec()).expect("three rounds")
        };
        let mut comparison = comparison();
        assert!(!comparison.page().contains("does nothing else"), "nothing is said of what was not measured");
        comparison.measurements.push(of_peer(Peer::BareEcho, [1, 1, 2], 2.0));
        comparison.measurements.push(of_peer(Peer::BestTunnel, [4, 5, 6], 8.0));
        let page = comparison.page();
        assert!(page.contains("| 64 × 1 | 4.00 × (3.00 to 5.00) | 0.25 × (0.25 to 0.25) |"), "{page}");
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([0.0, 7.4, 1_234.0, 411_712.0, 2_246_656.0].map(grouped).join("|"), "0|7|1 230|412 000|2 250 000");
    }
}
