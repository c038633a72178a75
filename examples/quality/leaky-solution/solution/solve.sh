#!/bin/sh
echo 14 18 30 >/app/combination.txt
