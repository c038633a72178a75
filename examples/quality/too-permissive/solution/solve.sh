#!/bin/sh
cat >/app/fib.sh <<"END"
#!/bin/sh
a=0 b=1 n=0
while [ $n -lt 10 ]; do echo $a; c=$((a + b)) a=$b b=$c n=$((n + 1)); done
END
chmod +x /app/fib.sh
