"""The commands that the scripts and the console command ``clipmapper`` run."""
