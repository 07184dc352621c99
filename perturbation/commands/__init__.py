"""Entry points of the scripts and of the console command ``clipmapper``, one module per command."""
