/*
 * Preloaded into turnutils_uclient, which picks random channel numbers from RFC 5766's range, 0x4000 to 0x7FFF. RFC 8656
 * section 12 reduces the range to 0x4000 to 0x4FFF, and a server rejects all others. This clears the two excess bits in
 * each random number that uclient draws, which is always one long.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

int RAND_bytes(unsigned char *bytes, int count)
{
    int (*real)(unsigned char *, int) = (int (*)(unsigned char *, int))dlsym(RTLD_NEXT, "RAND_bytes");
    int result = real(bytes, count);
    if (count == sizeof(long)) {
        long number;
        memcpy(&number, bytes, sizeof number);
        number &= ~0x3000L;
        memcpy(bytes, &number, sizeof number);
    }
    return result;
}
