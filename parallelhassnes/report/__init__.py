"""The report of a batch or an experiment: gathered once, then one HTML page without network, or Markdown."""
