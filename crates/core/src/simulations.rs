//! Are verdicts right as often as they say? Seeded simulations with noise as servers have it.
//!
//! ```text
//! cargo test -p llm-stream-core --release -- --ignored --nocapture simulations
//! ```

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

use crate::{
    comparison::{Change, RunValues, SIGNIFICANT},
    interval::{self, CONFIDENCE, StratifiedSample},
    statistic::Statistic,
};

/// The assumed variation between runs.
const ASSUMED: f64 = 0.03;

/// How the requests of a run vary around the typical value of their prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Noise {
    Normal(f64),
    Quantised,
    Lognormal,
    Outliers,
    Bimodal,
    Serial(f64),
    /// A slow component and as much noise of each request's own.
    SlowAndOwn,
}

const NOISES: [Noise; 8] = [
    Noise::Normal(0.1),
    Noise::Quantised,
    Noise::Lognormal,
    Noise::Outliers,
    Noise::Bimodal,
    Noise::Serial(0.7),
    Noise::Serial(0.95),
    Noise::SlowAndOwn,
];

impl Noise {
    fn name(self) -> String {
        match self {
            Self::Normal(share) => format!("normal {:.0} %", share * 100.0),
            Self::Quantised => "quantised to 5 %".into(),
            Self::Lognormal => "lognormal 0.3".into(),
            Self::Outliers => "3 % outliers × 5".into(),
            Self::Bimodal => "bimodal, 30 % cache hits".into(),
            Self::Serial(phi) => format!("AR({phi}), 10 %"),
            Self::SlowAndOwn => "AR(0.95) 7 % and own 7 %".into(),
        }
    }

    /// The mean of its factors.
    fn mean(self) -> f64 {
        match self {
            Self::Lognormal => 0.045_f64.exp(),
            Self::Outliers => 1.12,
            Self::Bimodal => 0.82,
            _ => 1.0,
        }
    }

    /// A factor for each of `n` requests in the order of time.
    fn factors(self, n: usize, random: &mut Pcg64Mcg) -> Vec<f64> {
        let mut z = {
            let mut random = Pcg64Mcg::seed_from_u64(random.random());
            move || -> f64 { StandardNormal.sample(&mut random) }
        };
        match self {
            Self::Normal(share) => (0..n).map(|_| (1.0 + share * z()).max(0.05)).collect(),
            Self::Quantised => (0..n).map(|_| 1.0 + (2.0 * z()).round() * 0.05).collect(),
            Self::Lognormal => (0..n).map(|_| (0.3 * z()).exp()).collect(),
            Self::Outliers => {
                let value = |_| (1.0 + 0.1 * z()) * if random.random_bool(0.03) { 5.0 } else { 1.0 };
                (0..n).map(value).collect()
            }
            Self::Bimodal => {
                let value = |_| (1.0 + 0.05 * z()) * if random.random_bool(0.3) { 0.4 } else { 1.0 };
                (0..n).map(value).collect()
            }
            Self::Serial(phi) => serial(n, phi, &mut z).iter().map(|of| 1.0 + 0.1 * of).collect(),
            Self::SlowAndOwn => {
                let slow = serial(n, 0.95, &mut z);
                slow.iter().map(|of| 1.0 + 0.07 * of + 0.07 * z()).collect()
            }
        }
    }
}

/// A stationary AR(1) process with variance 1.
fn serial(n: usize, phi: f64, z: &mut impl FnMut() -> f64) -> Vec<f64> {
    let mut level = z();
    let step = |_| {
        let now = level;
        level = phi * level + (1.0 - phi * phi).sqrt() * z();
        now
    };
    (0..n).map(step).collect()
}

/// A run of prompts in rounds, in a random order in each round.
#[derive(Clone)]
struct SimulatedRun {
    values: Vec<f64>,
    strata: Vec<u32>,
}

impl SimulatedRun {
    fn requests(&self) -> RunValues<'_> {
        RunValues::Requests(self.sample())
    }

    fn sample(&self) -> StratifiedSample<'_> {
        StratifiedSample { values: &self.values, strata: &self.strata }
    }

    fn of(prompts: u32, rounds: u32, factors: &[f64], random: &mut Pcg64Mcg) -> Self {
        let mut strata = Vec::new();
        for _ in 0..rounds {
            let mut round: Vec<_> = (0..prompts).collect();
            round.shuffle(random);
            strata.extend(round);
        }
        let values = strata.iter().zip(factors).map(|(of, factor)| level(*of) * factor).collect();
        Self { values, strata }
    }

    /// A run whose level varies by `effect` and whose requests vary by `noise`.
    fn draw(shape: (u32, u32), noise: Noise, effect: f64, random: &mut Pcg64Mcg) -> Self {
        let (prompts, rounds) = shape;
        let z: f64 = StandardNormal.sample(random);
        let mut factors = noise.factors((prompts * rounds) as usize, random);
        factors.iter_mut().for_each(|of| *of *= 1.0 + effect * z);
        Self::of(prompts, rounds, &factors, random)
    }

    fn slower(mut self, factor: impl Fn(usize, u32) -> f64) -> Self {
        for (nth, (value, stratum)) in self.values.iter_mut().zip(&self.strata).enumerate() {
            *value *= factor(nth, *stratum);
        }
        self
    }
}

/// The typical value of a prompt.
fn level(stratum: u32) -> f64 {
    10.0 * f64::from(1 + stratum % 10)
}

/// The share of `runs` seeds for which `is` holds, in percent.
fn percent(runs: u64, mut is: impl FnMut(&mut Pcg64Mcg) -> bool) -> f64 {
    let mut count = 0;
    for seed in 0..runs {
        count += u32::from(is(&mut Pcg64Mcg::seed_from_u64(seed)));
    }
    f64::from(count) * 100.0 / runs as f64
}

fn is_failed(change: &Change, limit: f64) -> bool {
    change.p_of_miss(true, |relative| relative > limit) <= SIGNIFICANT
}

fn since(before: &[SimulatedRun], now: &[SimulatedRun], assumed: f64) -> Change {
    let (before, now): (Vec<RunValues<'_>>, Vec<RunValues<'_>>) = (
        before.iter().map(SimulatedRun::requests).collect(),
        now.iter().map(SimulatedRun::requests).collect(),
    );
    Change::since(Statistic::Mean, &before, &now, assumed, CONFIDENCE).unwrap()
}

/// Pairs of two endpoints in the same rounds: the noise that both share, and `own` noise of each.
fn duet(
    shape: (u32, u32),
    shared: Noise,
    own: f64,
    slower: f64,
    random: &mut Pcg64Mcg,
) -> Change {
    let n = (shape.0 * shape.1) as usize;
    // Both take turns: the shared noise goes on from one to the other.
    let shared = shared.factors(2 * n, random);
    let (mut logs, mut strata) = (Vec::new(), Vec::new());
    let order = SimulatedRun::of(shape.0, shape.1, &vec![1.0; n], random);
    for (nth, stratum) in order.strata.iter().enumerate() {
        let is_first = usize::from(random.random_bool(0.5));
        let mut value = |place: usize, slower: f64| {
            let z: f64 = StandardNormal.sample(random);
            shared[2 * nth + place] * (1.0 + own * z) * slower
        };
        let (a, b) = (value(is_first, 1.0), value(1 - is_first, slower));
        logs.push((b / a).ln());
        strata.push(*stratum);
    }
    let pairs = StratifiedSample { values: &logs, strata: &strata };
    Change::of_pairs(pairs, (1.0, 1.0), CONFIDENCE).unwrap()
}

#[test]
#[ignore = "minutes of simulation: see the head of the module"]
fn intervals_of_means_hold_the_truth() {
    println!("coverage of 95 % intervals of a mean, and their median half-width");
    for noise in NOISES {
        let mut row = format!("{:26}", noise.name());
        for shape in [(10, 3), (1, 30), (10, 10), (1, 100), (10, 30)] {
            let truth = noise.mean() * (0..shape.0).map(level).sum::<f64>() / f64::from(shape.0);
            let mut widths = Vec::new();
            let held = percent(1000, |random| {
                let run = SimulatedRun::draw(shape, noise, 0.0, random);
                let of = interval::of(Statistic::Mean, run.sample(), CONFIDENCE).unwrap().unwrap();
                widths.push((of.high - of.low) / 2.0 / truth);
                of.holds(truth)
            });
            widths.sort_by(f64::total_cmp);
            let width = widths[widths.len() / 2] * 100.0;
            row.push_str(&format!("  {}x{}: {held:5.1} ±{width:5.1}", shape.0, shape.1));
        }
        println!("{row}");
    }
}

#[test]
#[ignore = "minutes of simulation: see the head of the module"]
fn an_unchanged_server_does_not_fail() {
    println!("false FAIL in percent, limit +3 %, by run effect 0, 2, 3, 4 %");
    for noise in NOISES {
        let mut row = format!("{:26}", noise.name());
        for runs in [1, 5, 20] {
            for effect in [0.0, 0.02, 0.03, 0.04] {
                let (mut held, all) = (0, 2000);
                let failed = percent(all, |random| {
                    let draw = |_| SimulatedRun::draw((10, 3), noise, effect, random);
                    let mut all: Vec<_> = (0..=runs).map(draw).collect();
                    let now = all.pop().unwrap();
                    let change = since(&all, &[now], ASSUMED);
                    held += u32::from(change.interval.holds(0.0));
                    is_failed(&change, 0.03)
                });
                row.push_str(&format!(" {failed:4.2}/{:3.0}", f64::from(held) * 100.0 / all as f64));
            }
            row.push_str(" |");
        }
        println!("{row}  (history 1 | 5 | 20; FAIL / coverage)");
    }
    for noise in NOISES {
        let mut row = format!("duet {:26}", noise.name());
        for shape in [(10, 3), (10, 10)] {
            let failed = percent(2000, |random| is_failed(&duet(shape, noise, 0.03, 1.0, random), 0.03));
            let held = percent(2000, |random| duet(shape, noise, 0.03, 1.0, random).interval.holds(0.0));
            row.push_str(&format!(" {failed:4.2}/{held:4.1}"));
        }
        println!("{row}");
    }
}

#[test]
#[ignore = "minutes of simulation: see the head of the module"]
fn slower_servers_fail() {
    println!("FAIL in percent");
    for noise in NOISES {
        let draw = |shape, effect, random: &mut Pcg64Mcg| SimulatedRun::draw(shape, noise, effect, random);
        let one_prompt = percent(500, |random| {
            let before = draw((10, 3), 0.0, random);
            let now = draw((10, 3), 0.0, random);
            let slow = random.random_range(0..10);
            let now = now.slower(|_, of| if of == slow { 3.0 } else { 1.0 });
            is_failed(&since(&[before], &[now], ASSUMED), 0.03)
        });
        let tail = |runs: usize, assumed: f64| percent(500, |random| {
            let before: Vec<_> = (0..runs).map(|_| draw((10, 10), 0.0, random)).collect();
            let is_slow: Vec<_> = (0..100).map(|_| random.random_bool(0.1)).collect();
            let now = draw((10, 10), 0.0, random);
            let now = now.slower(|nth, _| if is_slow[nth] { 4.0 } else { 1.0 });
            is_failed(&since(&before, &[now], assumed), 0.03)
        });
        let duet_found = percent(500, |random| {
            is_failed(&duet((10, 10), noise, 0.03, 1.05, random), 0.03)
        });
        let history = |runs: usize, measured: usize, slower: f64, shape| percent(500, |random| {
            let before: Vec<_> = (0..runs).map(|_| draw(shape, 0.03, random)).collect();
            let slow = |_| draw(shape, 0.03, random).slower(|_, _| slower);
            let now: Vec<_> = (0..measured).map(slow).collect();
            is_failed(&since(&before, &now, ASSUMED), 0.03)
        });
        let singles = percent(500, |random| {
            let before = draw((100, 1), 0.0, random);
            let now = draw((100, 1), 0.0, random).slower(|_, _| 1.05);
            is_failed(&since(&[before], &[now], 0.0), 0.03)
        });
        println!(
            "{:26} one prompt ×3 {one_prompt:5.1} | 10 % ×4: {:5.1} (history 20: {:5.1}, variation 0: {:5.1}) | duet +5 % {duet_found:5.1} | +10 %, history 20: 1 run {:5.1}, 3 runs {:5.1} | +20 %, 1 stored, 30: {:5.1}, 100: {:5.1} | 100 prompts x 1 +5 % {singles:5.1}",
            noise.name(), tail(1, ASSUMED), tail(20, ASSUMED), tail(1, 0.0),
            history(20, 1, 1.1, (10, 3)), history(20, 3, 1.1, (10, 3)), history(1, 1, 1.2, (10, 3)), history(1, 1, 1.2, (10, 10)),
        );
    }
}

#[test]
#[ignore = "probe"]
fn probe() {
    let show = |name: &str, changes: Vec<Change>| {
        let n = changes.len() as f64 / 100.0;
        let share = |is: &dyn Fn(&Change) -> bool| changes.iter().filter(|c| is(c)).count() as f64 / n;
        print!("{name:40} mean@.5/.8/.9/1");
        for part in [0.5, 0.8, 0.9, 1.0] { print!(" {:4.2}", share(&|c| c.relative > 0.03 && c.increase.statistic <= part * 0.01)); }
        print!(" tail@.5/.7/.75");
        for part in [0.5, 0.7, 0.75] { print!(" {:4.2}", share(&|c| c.relative > 0.03 && c.increase.tail <= part * 0.01)); }
        print!(" prompt@.1/.2/.3");
        for part in [0.1, 0.2, 0.3] { print!(" {:4.2}", share(&|c| c.increase.prompt.is_some_and(|p| p.p <= part * 0.01))); }
        println!();
    };
    for noise in [Noise::Normal(0.1), Noise::Lognormal, Noise::Outliers, Noise::Bimodal] {
        let all = |f: &dyn Fn(&mut Pcg64Mcg) -> Change| (0..4000).map(|s| f(&mut Pcg64Mcg::seed_from_u64(s))).collect::<Vec<_>>();
        show(&format!("duet 10x3 {}", noise.name()), all(&|r| duet((10, 3), noise, 0.03, 1.0, r)));
        show(&format!("duet 10x10 {}", noise.name()), all(&|r| duet((10, 10), noise, 0.03, 1.0, r)));
        show(&format!("duet 1x30 {}", noise.name()), all(&|r| duet((1, 30), noise, 0.03, 1.0, r)));
        for (k, shape) in [(1, (10, 3)), (1, (10, 10)), (20, (10, 3)), (20, (1, 30)), (1, (100, 1)), (20, (30, 1))] {
            show(&format!("history {k} {shape:?} {}", noise.name()), all(&|r| {
                let mut runs: Vec<_> = (0..=k).map(|_| SimulatedRun::draw(shape, noise, 0.03, r)).collect();
                let now = runs.pop().unwrap();
                since(&runs, &[now], ASSUMED)
            }));
        }
        show(&format!("10 % x4, 10x10 {}", noise.name()), all(&|r| {
            let before = SimulatedRun::draw((10, 10), noise, 0.0, r);
            let slow: Vec<_> = (0..100).map(|_| r.random_bool(0.1)).collect();
            let now = SimulatedRun::draw((10, 10), noise, 0.0, r).slower(|n, _| if slow[n] { 4.0 } else { 1.0 });
            since(&[before], &[now], ASSUMED)
        }));
        show(&format!("10 % x4, 1x100 {}", noise.name()), all(&|r| {
            let before = SimulatedRun::draw((1, 100), noise, 0.0, r);
            let slow: Vec<_> = (0..100).map(|_| r.random_bool(0.1)).collect();
            let now = SimulatedRun::draw((1, 100), noise, 0.0, r).slower(|n, _| if slow[n] { 4.0 } else { 1.0 });
            since(&[before], &[now], ASSUMED)
        }));
        show(&format!("duet 10 % x4 {}", noise.name()), all(&|r| {
            let shared = noise; let mut logs = vec![]; let mut strata = vec![];
            let f = shared.factors(200, r);
            for n in 0..100 { logs.push((f[2*n+1]/f[2*n]*if r.random_bool(0.1) {4.0} else {1.0}).ln()); strata.push(n as u32 % 10); }
            Change::of_pairs(StratifiedSample { values: &logs, strata: &strata }, (1.0, 1.0), CONFIDENCE).unwrap()
        }));
    }
}
