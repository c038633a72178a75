#!/bin/sh
set -eu
{
    echo 'shop,total,currency'
    awk -F, -v currency="$REPORT_CURRENCY" \
        'FNR > 1 { total[$2] += $3 } END { for (shop in total) print shop "," total[shop] "," currency }' \
        /app/data/*.csv | sort
} >/app/report.csv
