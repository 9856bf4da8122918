//! The order of a graph, or the circles that it has none for.

/// The nodes, upstream first and otherwise by number, given the upstream nodes of each; the `Err` has at least one
/// circle, each upstream first, beginning with its lowest number.
pub(super) fn order(upstream: &[Vec<usize>]) -> Result<Vec<usize>, Vec<Vec<usize>>> {
    let mut order: Vec<usize> = Vec::new();
    let mut circles: Vec<Vec<usize>> = Vec::new();
    let mut left: Vec<usize> = (0..upstream.len()).collect();
    while !left.is_empty() {
        if let Some(ready) = left.iter().position(|node| !upstream[*node].iter().any(|from| left.contains(from))) {
            order.push(left.remove(ready));
        } else {
            let circle = circle(upstream, &left);
            left.retain(|node| !circle.contains(node));
            circles.push(circle);
        }
    }
    if circles.is_empty() { Ok(order) } else { Err(circles) }
}

/// A circle among `left`, of which each node has another one upstream.
fn circle(upstream: &[Vec<usize>], left: &[usize]) -> Vec<usize> {
    let mut path: Vec<usize> = vec![left[0]];
    loop {
        let last = path[path.len() - 1];
        let Some(from) = upstream[last].iter().find(|from| left.contains(from)) else { return path };
        if let Some(begin) = path.iter().position(|node| node == from) {
            path.drain(..begin);
            path.reverse();
            let lowest = (0..path.len()).min_by_key(|at| path[*at]).unwrap_or_default();
            path.rotate_left(lowest);
            return path;
        }
        path.push(*from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_circle_is_told_once_and_what_hangs_on_it_not_at_all() {
        assert_eq!(order(&[vec![], vec![0, 3], vec![1], vec![2], vec![3]]), Err(vec![vec![1, 2, 3]]));
        assert_eq!(order(&[vec![0], vec![2], vec![1]]), Err(vec![vec![0], vec![1, 2]]));
    }

    proptest! {
        #[test]
        fn upstream_always_comes_first(links in prop::collection::vec((0..12_usize, 0..12_usize), 0..30)) {
            let mut upstream = vec![Vec::new(); 12];
            for (a, b) in links {
                upstream[a].push(b);
            }
            match order(&upstream) {
                Ok(order) => for (at, node) in order.iter().enumerate() {
                    prop_assert!(upstream[*node].iter().all(|from| order[..at].contains(from)));
                },
                Err(circles) => for circle in circles {
                    let next = circle.iter().cycle().skip(1);
                    prop_assert!(circle.iter().zip(next).all(|(from, to)| upstream[*to].contains(from)));
                },
            }
        }
    }
}
