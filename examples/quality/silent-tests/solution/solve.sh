#!/bin/sh
echo ready >/app/status.txt
