#!/bin/sh
printf 'blue\ngreen\nred\n' >/app/colours.txt
