from raygan.sweep.cli import main

main(prog_name="python -m raygan.sweep")
