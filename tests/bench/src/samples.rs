//! What was measured, by row and column, in the order of first appearance.

/// Nanoseconds per operation of one row and column, a value a round.
struct Cell {
    row: &'static str,
    column: &'static str,
    nanoseconds: Vec<f64>,
}

/// All that was measured in a run.
#[derive(Default)]
pub struct Samples(Vec<Cell>);

impl Samples {
    pub fn add(&mut self, row: &'static str, column: &'static str, nanoseconds: f64) {
        match self.find(row, column) {
            Some(index) => self.0[index].nanoseconds.push(nanoseconds),
            None => self.0.push(Cell {
                row,
                column,
                nanoseconds: vec![nanoseconds],
            }),
        }
    }

    fn find(&self, row: &str, column: &str) -> Option<usize> {
        self.0
            .iter()
            .position(|cell| cell.row == row && cell.column == column)
    }

    fn sorted(&self, row: &str, column: &str) -> Option<Vec<f64>> {
        let mut values = self.0[self.find(row, column)?].nanoseconds.clone();
        values.sort_by(f64::total_cmp);
        Some(values)
    }

    /// The median of the rounds.
    pub fn median(&self, row: &str, column: &str) -> Option<f64> {
        let values = self.sorted(row, column)?;
        values.get(values.len() / 2).copied()
    }

    /// The quickest round.
    pub fn minimum(&self, row: &str, column: &str) -> Option<f64> {
        self.sorted(row, column)?.first().copied()
    }

    /// The columns that `row` has.
    pub fn columns(&self, row: &str) -> Vec<&'static str> {
        let cells = self.0.iter().filter(|cell| cell.row == row);
        cells.map(|cell| cell.column).collect()
    }

    /// Every row and column.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.0.iter().map(|cell| (cell.row, cell.column))
    }
}
