# Completes the commands and options of hairpin-livekit in bash: what the installed program prints.
eval "$(hairpin-livekit completions bash)"
