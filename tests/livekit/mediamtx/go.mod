module hairpin.test/mediamtx

go 1.25

require github.com/bluenviron/mediamtx v1.15.3
