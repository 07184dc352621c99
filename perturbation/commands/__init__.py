"""What the scripts and the console command ``clipmapper`` run."""
