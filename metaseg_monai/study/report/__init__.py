"""From the results of a study to its report: numbers, tests, words, tables, figures, pages."""
