//! The table as a picture: a block of bars for each row, the fastest first.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: u32 = 760;
/// Where bars begin, and how long the longest is.
const LEFT: u32 = 110;
const BAR_MAX: f64 = 380.0;
const BAR_HEIGHT: u32 = 13;
const STEP: u32 = 18;
const TITLE_HEIGHT: u32 = 30;
const LEGEND_HEIGHT: u32 = 34;

/// Ours, a sealed peer, one in the clear, and one that copies no files.
const COLOURS: [(&str, &str); 4] = [
    ("#0a7d5a", "nova bulk"),
    ("#4a6fb5", "sealed"),
    ("#b9a26a", "in the clear"),
    ("#bbbbbb", "TCP alone, no files"),
];

/// A picture of lines as the table has them.
pub(crate) fn draw(lines: &[Value]) -> String {
    let mut rows: Vec<(&str, Vec<&Value>)> = Vec::new();
    for line in lines {
        let name = line["row"].as_str().unwrap_or_default();
        match rows.last_mut() {
            Some((last, bars)) if *last == name => bars.push(line),
            _ => rows.push((name, vec![line])),
        }
    }
    let mut body = String::new();
    let mut y = LEGEND_HEIGHT;
    for (name, bars) in &mut rows {
        bars.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
        block(&mut body, name, bars, &mut y);
    }
    let mut all = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{0}\" viewBox=\"0 0 {WIDTH} {0}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{0}\" fill=\"#fff\"/>\n",
        y + 8
    );
    let mut x = 12;
    for (colour, what) in COLOURS {
        put(&mut all, &format!("<rect x=\"{x}\" y=\"10\" width=\"11\" height=\"11\" fill=\"{colour}\"/>"));
        put(&mut all, &format!("<text x=\"{}\" y=\"20\">{what}</text>", x + 16));
        x += 130;
    }
    all + &body + "</svg>\n"
}

fn rate(line: &Value) -> f64 {
    line["gbit_per_s"].as_f64().unwrap_or_default()
}

fn put(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes what is written");
}

fn block(body: &mut String, name: &str, bars: &[&Value], y: &mut u32) {
    put(
        body,
        &format!("<text x=\"12\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">{name}</text>", *y + 18),
    );
    *y += TITLE_HEIGHT;
    let most = bars.iter().map(|line| rate(line)).fold(1e-9, f64::max);
    for line in bars {
        let is = |key: &str| line[key].as_bool().unwrap_or_default();
        let peer = line["peer"].as_str().unwrap_or_default();
        let (colour, _) = COLOURS[match (peer, is("copies"), is("sealed")) {
            ("nova bulk", ..) => 0,
            (_, false, _) => 3,
            (_, _, true) => 1,
            _ => 2,
        }];
        let width = (rate(line) / most * BAR_MAX).max(1.0);
        let cut = if is("took_too_long") { "&lt; " } else { "" };
        let share = line["share_of_link"]
            .as_f64()
            .map_or_else(String::new, |share| format!(", {:.0} %", share * 100.0));
        let cost = line["cpu_s_per_gb"].as_f64().unwrap_or_default();
        let said = format!("{cut}{:.2} Gbit/s{share}, {cost:.2} CPU-s/GB", rate(line));
        let (middle, end) = (*y + BAR_HEIGHT - 2, f64::from(LEFT) + width + 6.0);
        put(body, &format!("<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{peer}</text>", LEFT - 6));
        put(
            body,
            &format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>"
            ),
        );
        put(body, &format!("<text x=\"{end:.1}\" y=\"{middle}\">{said}</text>"));
        *y += STEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_block_and_the_fastest_bar_is_the_longest() {
        let text = draw(&crate::figure::tests::table().lines());
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        for said in
            ["large at 1 Gbit/s", "nova bulk</text>", "0.80 Gbit/s, 80 %, 20.00 CPU-s/GB", "&lt; 8.00 Gbit/s"]
        {
            assert!(text.contains(said), "{said} in {text}");
        }
        let width = |colour: &str| -> f64 {
            let bar = text
                .lines()
                .rfind(|line| line.contains(&format!("height=\"13\" fill=\"{colour}\"")))
                .unwrap();
            bar.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        assert!(
            (width(COLOURS[0].0) - BAR_MAX).abs() < 0.1 && (width(COLOURS[1].0) - BAR_MAX / 2.0).abs() < 0.1
        );
    }
}
