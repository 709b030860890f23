//! The replicas of a model, among which a load distributes its requests.

/// The replicas with the number of their requests in flight.
#[derive(Debug)]
pub(super) struct ReplicaTurns {
    in_flight: Vec<usize>,
    /// The successor of the replica of the last request.
    next: usize,
}

impl ReplicaTurns {
    /// Creates a list of so many replicas without requests.
    pub(super) fn new(replicas: usize) -> Self {
        Self { in_flight: vec![0; replicas.max(1)], next: 0 }
    }

    /// Returns the replica of the next request: the one with the fewest requests in flight, in turn
    /// among equals. Purely by turns, a slow replica would have more and more of a closed loop.
    pub(super) fn choose(&mut self) -> usize {
        let count = self.in_flight.len();
        let turns = (0..count).map(|nth| (self.next + nth) % count);
        let chosen = turns.min_by_key(|replica| self.in_flight[*replica]).unwrap_or_default();
        self.next = (chosen + 1) % count;
        chosen
    }

    /// Counts a request to a replica.
    pub(super) fn begin(&mut self, replica: usize) {
        self.in_flight[replica] += 1;
    }

    /// A request to a replica has ended.
    pub(super) fn end(&mut self, replica: usize) {
        self.in_flight[replica] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_take_turns_and_a_slow_one_gets_no_more_than_its_share() {
        let mut replicas = ReplicaTurns::new(3);
        let send = |replicas: &mut ReplicaTurns| {
            let chosen = replicas.choose();
            replicas.begin(chosen);
            chosen
        };
        let first: Vec<_> = (0..6).map(|_| send(&mut replicas)).collect();
        assert_eq!(first, [0, 1, 2, 0, 1, 2]);
        // A closed loop: the replica that has answered gets the next request.
        for answered in [1, 1, 2, 1] {
            replicas.end(answered);
            assert_eq!(send(&mut replicas), answered);
        }
        let mut one = ReplicaTurns::new(1);
        assert_eq!([send(&mut one), send(&mut one)], [0, 0]);
    }
}
