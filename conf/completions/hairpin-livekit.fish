# Completes the commands and options of hairpin-livekit in fish: what the installed program prints.
hairpin-livekit completions fish | source
