//! What a healthy hook notices of a sick one: the fault ledger's rows, as measures and over time.

use anyhow::{Context as _, Result};

use crate::chaos::{self, Size, plot};
use crate::question::Question;
use crate::report::{Goal, Measure, Section};

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Rows of the fault ledger.
    #[arg(long, value_delimiter = ',', default_values_t = ["refusing".to_owned()])]
    pub faults: Vec<String>,
    /// Pairs of runs.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
    /// How much of each row is run.
    #[arg(skip = Size::FULL)]
    pub size: Size,
}

impl Question for Options {
    const NAME: &'static str = "neighbours";

    fn full() -> Self {
        let faults = ["refusing", "silent", "slow", "many-sick"];
        Self {
            faults: faults.map(str::to_owned).to_vec(),
            pairs: 5,
            size: Size::FULL,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

/// Runs the rows.
#[expect(clippy::print_stdout, reason = "it takes minutes")]
async fn measure(options: &Options) -> Result<Section> {
    let mut section = Section {
        title: "Neighbours: a healthy hook beside a sick one".to_owned(),
        about:
            "1,000 events a second, half of them for the sick endpoint, or for nobody where that is \
                absent; the median of alternating pairs. The plots show the last run beside the sick one."
                .to_owned(),
        ..Section::default()
    };
    for name in &options.faults {
        let fault = chaos::fault(name).with_context(|| format!("there is no row {name}"))?;
        println!("  {name}: {}", fault.what);
        let size = Size {
            pairs: options.pairs,
            ..options.size
        };
        let row = fault.run(size).await?;
        let (without, with) = row.compared.context("the row compares nothing")?;
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1_000.0;
        let measure = Measure::stated(format!("healthy p99, {name} / without"), ms(with), "ms");
        let goal = Goal::AtMostOr(1.2, 5.0);
        section
            .measures
            .push(measure.against(ms(without)).goal(goal));
        section.plots.push(plot::plot(&row));
    }
    Ok(section)
}
