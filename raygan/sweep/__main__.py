from raygan.sweep.commands.sweep import main

if __name__ == "__main__":  # processes that are spawned load this module, too
    main(prog_name="python -m raygan.sweep")
