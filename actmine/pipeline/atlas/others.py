"""All that a run's pages show of other runs: matches of its units, whole comparisons, checkpoints of training."""

from __future__ import annotations

from actmine.pipeline.atlas.comparing import Comparisons
from actmine.pipeline.atlas.elsewhere import Elsewhere
from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.atlas.matches import Matches
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.training import Training


class Others:
    """Other runs as those who look at a run see them."""

    def __init__(self, queries: Queries) -> None:
        elsewhere = Elsewhere(queries.run)
        self.matches = Matches(queries, elsewhere)
        self.training = Training(queries, elsewhere)
        self.comparisons = Comparisons(queries, self.matches)

    def pictured(self, units: int) -> int:
        """About how many pictures of other runs pages of so many units show at most."""
        training, matches = self.training, self.matches
        at_checkpoints = units * sum(training.other(at) is not None for at in range(len(training.names)))
        of_matches = 0
        for name in matches.names():
            if other := matches.other(name):
                of_matches += min(units * matches.most(name), other.units)
        return at_checkpoints + of_matches

    def behind(self, picture: Picture) -> tuple[Queries, Picture] | None:
        """The other run and its picture that a picture of `links.OF_OTHERS` stands for; None where there is none.

        Raises `UserError` where a table cannot be read.
        """
        return self.training.behind(picture) if picture.kind == "checkpoint" else self.matches.behind(picture)
