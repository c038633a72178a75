#!/bin/sh
echo 604800 >/app/answer.txt
