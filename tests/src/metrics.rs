//! Reads Prometheus text.

/// The sum of all series of `name` that have all `labels`.
#[must_use]
pub fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    text.lines()
        .filter_map(|line| sample(line, name, labels))
        .sum()
}

fn sample(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let (series, value) = if let Some(rest) = rest.strip_prefix('{') {
        rest.rsplit_once('}')?
    } else if rest.starts_with(' ') {
        ("", rest)
    } else {
        return None;
    };
    let carries = |(label, value): &(&str, &str)| {
        let pair = format!("{label}=\"{value}\"");
        series.split(',').any(|part| part == pair)
    };
    if !labels.iter().all(carries) {
        return None;
    }
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::sum;

    const TEXT: &str = "# TYPE a_total counter\n\
        a_total{handler=\"log\",outcome=\"dead\"} 2\n\
        a_total{handler=\"log\",outcome=\"delivered\"} 40\n\
        a_total_more{outcome=\"dead\"} 7\n\
        b 3\n";

    #[test]
    fn adds_up_the_series_that_carry_the_labels() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(sum(TEXT, "a_total", &[]), 42.0));
        assert!(close(sum(TEXT, "a_total", &[("outcome", "dead")]), 2.0));
        assert!(close(sum(TEXT, "b", &[]), 3.0));
        assert!(close(sum(TEXT, "c", &[]), 0.0));
    }
}
