//! The order in which rows of several tables are made.

/// The places of `tables` in an order in which one that others point at comes before them, as far as they do not go round
/// in a circle. `points`: which points at which.
pub fn parents_first(tables: &[&str], points: &[(String, String)]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..tables.len()).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let waits = |at: usize| {
            left.iter().any(|other| {
                *other != at
                    && points
                        .iter()
                        .any(|(child, parent)| child == tables[at] && parent == tables[*other] && child != parent)
            })
        };
        let next = left.iter().position(|at| !waits(*at)).unwrap_or(0);
        order.push(left.remove(next));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pointed_at_comes_first() {
        let points = [("a", "b"), ("b", "c"), ("d", "d"), ("x", "y"), ("y", "x")];
        let points = points.map(|(child, parent)| (child.to_owned(), parent.to_owned()));
        assert_eq!(parents_first(&["a", "b", "c", "d"], &points), [2, 1, 0, 3]);
        assert_eq!(parents_first(&["x", "y"], &points), [0, 1], "a circle has some order");
    }
}
