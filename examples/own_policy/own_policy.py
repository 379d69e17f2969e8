"""A batching policy of your own: batches of four, or what has come when one has waited 50 ms."""

from roadstream.stages.batching.policy import BatchPolicy, Moment, ShapeQueue, Take


class FourOrLate(BatchPolicy):
    """Batches of one size, which models that were compiled for it like best."""

    size = 4
    patience = 0.05

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        """Begin with a full batch at once, and else when an image has waited long enough."""
        if len(queue) >= min(self.size, queue.most):
            return moment.now
        return queue.oldest_at + self.patience

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Take the most urgent live images, then the oldest archive images."""
        return Take(self.size)
