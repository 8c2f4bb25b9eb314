from raygan.sweep.commands.data_command import main

if __name__ == "__main__":  # processes that are spawned load this module, too
    main(prog_name="python -m raygan.data")
