#!/bin/sh
awk "BEGIN { for (n = 1; n <= 20000; n++) { m = n; k = 0; for (p = 2; p * p <= m; p++) while (m % p == 0) { m /= p; k++ } if (m > 1) k++; if (k == 3) c++ } print c }" >/app/answer.txt
