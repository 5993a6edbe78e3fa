"""The command-line programs: flags and gin on the outside, divco_tf's plain functions inside."""
