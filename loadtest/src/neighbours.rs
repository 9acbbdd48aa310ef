//! How much a sick hook delays a healthy one: the neighbour faults of [`chaos`], as measures.

use anyhow::{Context as _, Result};

use crate::chaos::{self, Size, plot};
use crate::question::Question;
use crate::report::{Goal, Measure, Section};

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Neighbour faults, by name.
    #[arg(long, value_delimiter = ',', default_values_t = ["refusing".to_owned()])]
    pub faults: Vec<String>,
    /// Pairs of runs.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
    /// How long and how hard each fault is run.
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

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let mut section = Section {
        title: "Neighbours: a healthy hook beside a sick one".to_owned(),
        about:
            "1,000 events per second, half of them for the sick endpoint, or for no hook where that is \
                absent; median of alternating pairs. The plots show the last run with the sick endpoint."
                .to_owned(),
        ..Section::default()
    };
    for name in &options.faults {
        let fault = chaos::fault(name).with_context(|| format!("there is no fault {name}"))?;
        println!("  {name}: {}", fault.what);
        let size = Size {
            pairs: options.pairs,
            ..options.size
        };
        let row = fault.run(size).await?;
        let (without, with) = row
            .compared
            .with_context(|| format!("the fault {name} compares no times"))?;
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
