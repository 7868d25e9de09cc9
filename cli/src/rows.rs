//! Lists as `--format` wants them: JSON or a template for each row, or docker's `table` with columns of one's own.

use serde_json::Value;

use crate::report::CommandError;
use crate::template::Template;

/// Docker's columns are at least this wide, with the blanks behind them.
const WIDTH: usize = 10;
const BLANKS: usize = 3;

/// The list, each row an object. `heads` has the fields of a row with the words that stand above their columns.
pub(crate) fn render(format: &str, heads: &Value, rows: &[Value]) -> Result<String, CommandError> {
    if format == "json" {
        return Ok(rows.iter().map(|row| format!("{row}\n")).collect());
    }
    // Shells pass these on as they are typed.
    let text = format.replace("\\t", "\t").replace("\\n", "\n");
    let (text, head) = match text.strip_prefix("table ") {
        Some(columns) => (columns, Some(heads)),
        None => (text.as_str(), None),
    };
    let template = Template::parse(text)?;
    let lines = head.into_iter().chain(rows).map(|row| template.render(row)).collect::<Result<Vec<_>, _>>()?;
    Ok(if head.is_some() { aligned(&lines) } else { lines.iter().map(|line| format!("{line}\n")).collect() })
}

/// Lines whose cells are separated by tabs.
fn aligned(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let longest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            let width = (longest.unwrap_or(0) + BLANKS).max(WIDTH);
            line += &format!("{cell:<width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_tables_and_json() {
        let heads = json!({"ID": "CONTAINER ID", "Names": "NAMES", "Label": {}});
        let rows = [
            json!({"ID": "1", "Names": "a-rather-long-name", "Label": {"tier": "web"}}),
            json!({"ID": "22", "Names": "b", "Label": {}}),
        ];
        let made = |format: &str| render(format, &heads, &rows).unwrap();
        assert_eq!(made("{{.Names}}"), "a-rather-long-name\nb\n");
        assert_eq!(made(r"{{.ID}}\t{{.Names}}"), "1\ta-rather-long-name\n22\tb\n");
        assert_eq!(made(r#"{{.ID}}:{{.Label "tier"}}"#), "1:web\n22:\n");
        assert_eq!(made("json").lines().count(), 2);
        assert_eq!(
            made(r"table {{.Names}}\t{{.ID}}"),
            "NAMES                CONTAINER ID\na-rather-long-name   1\nb                    22\n"
        );
        assert!(render("{{.Nothing}}", &heads, &rows).is_err() && render("{{", &heads, &rows).is_err());
    }
}
