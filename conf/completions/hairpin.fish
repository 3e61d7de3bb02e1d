# Completes the commands and options of hairpin in fish: what the installed program prints.
hairpin completions fish | source
