/*
 * Preloaded into turnutils_uclient, which draws channel numbers at random from RFC 5766's range, 0x4000 to 0x7FFF. RFC
 * 8656 section 12 keeps 0x4000 to 0x4FFF of it, and a server refuses the others: so the two bits above are cleared in
 * what uclient draws, which for numbers is always one long.
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
