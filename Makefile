# The targets live in Makefile.core.mk; `make` alone prints them.
include Makefile.core.mk
