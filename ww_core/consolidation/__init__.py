"""From a log of episodes to named clusters: selection, clustering, identity, assignment, labels, folding, decay."""
