#!/usr/bin/env bash
# Runs a sweep as the command of a Ray job. Ray knows only that a job succeeded or failed, and KubeRay
# tries each failed one again on a new cluster. So the ends of a sweep that another try cannot change
# count as success here; their meaning is in the last line of the log and in the sweep's result.json.
trap : INT TERM    # the sweep gets the signal, too, and this shell waits for its exit code
python -m raygan.sweep "$@"
code=$?
case $code in
    0) exit 0 ;;
    2) why="it was refused: the reason stands above" ;;
    3) why="too many trials have no result: the reasons stand above" ;;
    4) why="its budget is reached: raise it and submit the sweep again" ;;
    *) echo "The sweep ended with exit code $code. A new try resumes it." && exit "$code" ;;
esac
echo "The sweep ended with exit code $code, $why. It is not tried again."
