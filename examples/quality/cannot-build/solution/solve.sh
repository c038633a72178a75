#!/bin/sh
echo hi >/app/out.txt
